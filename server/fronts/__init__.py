"""The ways in: the gRPC stream, the unary calls, and an ExternalEnv in this process, all on one thread and one episode core.

Imports policyserver, and of the rest of the server the episode core and the configuration.
"""
