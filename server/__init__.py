"""The policy server: RLlib env runner, episodes, inference, the daemon.

Imports policyserver and monitoring; ray and torch live only here.
"""
