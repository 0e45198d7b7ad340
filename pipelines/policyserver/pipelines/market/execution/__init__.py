"""The simulated broker: orders against bars, with costs, margin and calls. Imports accounts, instruments and orders.

Imports `common.settings` and `pipelines.market`.
"""
