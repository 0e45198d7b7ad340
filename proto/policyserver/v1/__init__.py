"""Generated protobuf and gRPC stubs, which import grpc and protobuf alone. Regenerate with `make protos`; never edit."""
