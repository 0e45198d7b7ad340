"""What decides actions: RLlib's modules and connectors, on whole batches of arrays where that is exact, else as RLlib runs them.

Knows nets, connectors and distributions, and nothing of clients. Imports policyserver, and of the rest of the server nothing.
"""
