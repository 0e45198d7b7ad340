"""RLlib's own connector pipelines on live episodes, the choice between them and array code, and the policy made of what is chosen.

Imports `common.errors`, `common.spaces`, `server.policies.module`, `server.policies.policy` and `server.policies.vectorized`.
"""
