"""What both ends of the contract share: arrays, spaces, errors, settings, addresses. Imports grpc, numpy, protobuf and gymnasium only."""
