"""RLlib's own connector pipelines on live episodes, the choice between them and array code, and the policy made of what is chosen.

Imports `common`, `common.acting.action_form`, `server.policies.module`, `server.policies.policy` and `server.policies.vectorized`.
"""
