"""The net that answers: forward passes, distributions, draws.

Imports `common.spaces` and `server.policies.policy`.
"""
