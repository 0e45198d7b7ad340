"""Generated protobuf and gRPC stubs, which need grpc and protobuf alone. Regenerate with `make protos`; never edit.

Imports nothing of ours.
"""
