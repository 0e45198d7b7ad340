"""What decides actions: RLlib's modules and connectors, on whole batches of arrays where that is exact, else as RLlib runs them.

Imports `policyserver.common`, and of the rest of the server nothing; knows nothing of clients.
"""
