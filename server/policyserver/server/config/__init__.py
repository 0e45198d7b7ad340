"""The configuration of a server, its defaults, and RLlib's AlgorithmConfig made from it.

Imports `policyserver.common`, `policyserver.monitoring`, and of the server `ActionForm`, `ScaleImages` and `ExternalEnvRunner`.
"""
