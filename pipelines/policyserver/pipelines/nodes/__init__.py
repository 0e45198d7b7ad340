"""The nodes of the trading pipeline, one file each, in the order of a step.

Imports `common.errors`, `monitoring.points`, `pipelines` and `pipelines.runtime`.
"""
