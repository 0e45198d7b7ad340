"""Points, the sinks that record them, and what shows them.

Imports `common.command_line`, `common.figures`, `common.file_permissions`, `common.server_stats`, `common.settings`,
`common.standard_streams`, `monitoring.influx`, `monitoring.page` and `monitoring.store`.
"""
