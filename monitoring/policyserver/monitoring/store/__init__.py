"""The embedded store: one SQLite file, its writer, readers, housekeeping and exports.

Imports the schema, the points, the recorded prices, the line protocol, the sinks' base and `policyserver.common`.
"""
