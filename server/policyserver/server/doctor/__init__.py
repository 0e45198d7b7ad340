"""The command `policy-server doctor`: looks at everything before a start, with the checks of the start, and says what to do.

Imports `common`, `monitoring.influx`, `monitoring.page.listen`, `monitoring.recording`, `monitoring.store.reader`,
`server.alone.lone_server`, `server.config`, `server.control.admin_security`, `server.daemon`, `server.grpc_front.listen_address`,
`server.processes.log_setup` and `server.runner`.
"""
