"""The trading application: prices, nodes, portfolio, rewards.

Imports `client`, `common`, `monitoring`, `monitoring.metrics`, `monitoring.page`, `monitoring.store.reader`, `pipelines.audit`,
`pipelines.comparison`, `pipelines.demo`, `pipelines.forecast`, `pipelines.market`, `pipelines.market.files`, `pipelines.market.processes`,
`pipelines.market.risk`, `pipelines.market.schemes`, `pipelines.market.schemes.actions`, `pipelines.market.schemes.ends`,
`pipelines.market.schemes.observers`, `pipelines.market.schemes.rewards`, `pipelines.nodes`, `pipelines.prices`, `pipelines.replay` and
`pipelines.runtime`.
"""
