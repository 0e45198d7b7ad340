"""The process that serves: RLlib's env runner, and the thread with the asyncio loop that its ways in share.

Imports `common`, `server.config.ignored_settings`, `server.config.serving_config`, `server.episodes`, `server.external_env`,
`server.grpc_front`, `server.policies.connectors`, `server.policies.policy` and `server.processes`.
"""
