"""Policies on their way out of a run folder: to a file, without what only learning needs.

Imports `common`, `common.acting`, `server.config`, `server.daemon`, `server.policies.connectors.connector_choice`,
`server.policies.module`, `server.policies.vectorized`, `server.runner.env_runner` and `v1`.
"""
