"""The configuration of a server, its defaults, and the AlgorithmConfig of RLlib's that is made from it.

Imports policyserver.common and policyserver.monitoring; of the server, where RLlib's configuration is made, the classes it names.
"""
