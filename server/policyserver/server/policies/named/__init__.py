"""Policies that don't learn, beside the one that does: loaded checkpoints, and versions that episodes are pinned to.

Imports `common`, `server.policies.policy` and `server.policies.vectorized`.
"""
