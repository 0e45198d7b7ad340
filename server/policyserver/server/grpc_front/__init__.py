"""The gRPC way in: addresses, messages to rows and back, the stream, the unary calls.

Imports `common`, `server.config.node_address`, `server.config.serving_config`, `server.episodes` and `v1`.
"""
