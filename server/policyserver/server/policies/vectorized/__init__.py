"""RLlib's usual connectors as operations on whole batches of arrays.

Imports `common.acting`, `common.spaces`, `server.policies.module` and `server.policies.policy`.
"""
