"""The demo: a server of its own, a terminal view, a page, and the pipeline between them.

It starts the server as a process, so it imports nothing of it.

Imports `client`, `common`, `monitoring.page.server`, `monitoring.sink`, `monitoring.store.reader`, `pipelines`,
`pipelines.forecast.state_file`, `pipelines.market`, `pipelines.prices`, `pipelines.replay` and `pipelines.runtime`.
"""
