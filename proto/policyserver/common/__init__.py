"""What both ends of the contract share: arrays, spaces, errors, settings, addresses.

Imports `policyserver.v1`, annotated_types, grpc, gymnasium, numpy and protobuf only.
"""
