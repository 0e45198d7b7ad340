"""The process that learns: Ray's driver. It starts the serving actors, trains, records, saves, and ends in order.

Imports `common.endpoints`, `common.file_lock`, `common.settings`, `monitoring`, `monitoring.page.server`, `monitoring.store.write_access`,
`server.config`, `server.grpc_front.listen_address`, `server.grpc_front.listen_security`, `server.processes` and `server.runner.env_runner`.
"""
