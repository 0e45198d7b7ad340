"""The process that serves: RLlib's env runner, and the thread with the asyncio loop that its ways in share.

Imports `common`, `common.acting.action_form`, `server.config`, `server.episodes`, `server.external_env`, `server.grpc_front`,
`server.policies.connectors`, `server.policies.named.named_policies`, `server.policies.policy`,
`server.policies.vectorized.vectorized_policy`, `server.processes` and `v1`.
"""
