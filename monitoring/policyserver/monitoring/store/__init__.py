"""The embedded store: one SQLite file, its writer, its readers, housekeeping, exports.

Imports the schema, the points and policyserver.common.
"""
