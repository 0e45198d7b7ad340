"""The market without threads, clocks and sockets: prices, accounts, orders, rewards as arrays; the same input gives the same bits.

Imports `common.settings`, `pipelines.market.execution.account_config`, `pipelines.market.execution.broker`, `pipelines.market.files`,
`pipelines.market.risk`, `pipelines.market.schemes.actions`, `pipelines.market.schemes.ends`, `pipelines.market.schemes.observers`,
`pipelines.market.schemes.rewards` and `pipelines.market.schemes.scheme`.
"""
