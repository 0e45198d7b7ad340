"""What the process that learns and the processes that serve have in common: their link, logs, processors and the training report.

Imports `common.channels`, `common.errors`, `common.figures`, `common.server_stats`, `common.streaming_calls`, `common.tensors`,
`server.config.link_address`, `server.config.log_config` and `v1`.
"""
