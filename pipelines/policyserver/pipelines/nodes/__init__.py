"""The nodes of the trading pipeline, one file each, in the order of a step.

Imports `common.errors`, `monitoring.points`, `pipelines`, `pipelines.comparison.kept_episodes`, `pipelines.market`,
`pipelines.market.schemes.actions.sell_hold_buy`, `pipelines.prices`, `pipelines.replay.turn` and `pipelines.runtime`.
"""
