"""`make learn`: the demo's problem with its controls, its scale, and beside RLlib's default settings; writes docs/learning.md.

Imports `benchmarks`, `common.settings`, `monitoring`, `monitoring.store.reader`, `pipelines`, `pipelines.demo`, `pipelines.market`,
`pipelines.market.schemes.actions.sell_hold_buy`, `pipelines.market.schemes.ends.equity_ends`,
`pipelines.market.schemes.rewards.log_equity`, `pipelines.prices`, `pipelines.replay.run_folder` and `pipelines.runtime`.
"""
