"""RLlib's usual connectors as operations on whole batches of arrays.

Imports `policyserver.common`, and of the server only `policies.policy` and `policies.module`.
"""
