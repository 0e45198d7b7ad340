"""The net that answers: forward passes, distributions, draws.

Imports `policyserver.common`, and of the server only `policies.policy`.
"""
