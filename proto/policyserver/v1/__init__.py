"""Generated protobuf and gRPC stubs. Regenerate with `make protos`; never edit."""
