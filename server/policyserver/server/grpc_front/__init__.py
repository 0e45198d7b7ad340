"""The gRPC way in: addresses, messages to rows and back, the stream, the unary calls.

Imports policyserver.common and policyserver.v1; of the server the episode core, the configuration and what the daemon reports.
"""
