"""The demo: a server of its own, a terminal view, a page, and the pipeline between them.

Imports all of `pipelines/`, the client, `policyserver.common` and `policyserver.monitoring`; it starts the server as a process.
"""
