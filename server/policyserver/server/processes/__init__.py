"""What the process that learns and the processes that serve have in common: their link, logs, processors and the training report.

Imports `common.figures`, `common.server_stats` and `server.config.log_config`.
"""
