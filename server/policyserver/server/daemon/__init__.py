"""The process that learns: Ray's driver. It starts the serving actors, trains, records, saves, and ends in order.

Imports `common`, `monitoring`, `monitoring.metrics`, `monitoring.page`, `monitoring.store.write_access`, `server.config`, `server.control`,
`server.episodes.pass_timing`, `server.grpc_front`, `server.guard`, `server.processes`, `server.runner` and `v1`.
"""
