"""The net that answers: forward passes, distributions, draws.

Imports `common`, `common.acting` and `server.policies.policy`.
"""
