"""The wire contract and what both of its ends share: arrays, spaces, errors, settings. Imports grpc, numpy, protobuf and gymnasium only."""
