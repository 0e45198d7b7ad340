"""Policies that don't learn, beside the one that does: loaded checkpoints, and versions that episodes are pinned to.

Imports `common`, `common.acting.keyed_draws`, `server.policies.policy`,
`server.policies.vectorized.vectorized_policy` and `server.processes.shadow_actions`.
"""
