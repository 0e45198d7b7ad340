"""Checks of a whole pipeline: does it know its future, does it earn where nothing can be earned, does its warm-up matter.

Imports `monitoring`, `pipelines`, `pipelines.market`, `pipelines.market.schemes.observers`, `pipelines.market.truth.other_bars`,
`pipelines.prices` and `pipelines.replay.turn`.
"""
