"""The net that answers: forward passes, distributions, draws.

Imports `common.acting`, `common.spaces` and `server.policies.policy`.
"""
