"""The nodes of the trading pipeline, one file each, in the order of a step.

Imports `pipelines/` but its demo, the points of `policyserver.monitoring`, and `policyserver.common`.
"""
