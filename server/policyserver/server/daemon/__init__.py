"""The process that learns: Ray's driver. It starts the serving actors, trains, records, saves, and ends in order.

Imports `common.endpoints`, `common.figures`, `common.file_lock`, `common.process_figures`, `common.server_stats`, `common.settings`,
`monitoring`, `monitoring.metrics`, `monitoring.page`, `monitoring.store.write_access`, `server.config`, `server.episodes.pass_timing`,
`server.grpc_front.listen_address`, `server.grpc_front.listen_security`, `server.processes` and `server.runner.env_runner`.
"""
