"""The trading application: prices, nodes, portfolio, rewards.

Imports `client`, `common`, `monitoring`, `monitoring.store.reader`, `pipelines.demo`, `pipelines.nodes` and `pipelines.runtime`.
"""
