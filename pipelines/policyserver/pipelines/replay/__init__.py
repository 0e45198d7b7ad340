"""Runs that can be repeated: what a run leaves in its folder, and its replay.

Imports `client`, `common`, `monitoring.sink`, `monitoring.trouble`, `pipelines`, `pipelines.forecast.state_file`, `pipelines.market`,
`pipelines.market.files.faults`, `pipelines.prices` and `pipelines.runtime.inbox`.
"""
