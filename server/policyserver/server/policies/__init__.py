"""What decides actions: RLlib's modules and connectors, on whole batches of arrays where that is exact, else as RLlib runs them.

It knows nothing of clients.

Imports `common.server_stats`.
"""
