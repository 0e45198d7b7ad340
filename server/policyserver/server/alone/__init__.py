"""Serving without learning: a trained policy in one process, without Ray.

Imports `common`, `server.config`, `server.control`, `server.daemon`, `server.export`, `server.grpc_front.listen_address`,
`server.processes`, `server.runner.env_runner` and `v1`.
"""
