"""The configuration of a server, its defaults, and RLlib's AlgorithmConfig made from it.

Imports policyserver.common, policyserver.monitoring, and of the server the classes that RLlib's configuration names.
"""
