"""The embedded store: one SQLite file, its writer, readers, housekeeping and exports.

Imports `common.file_lock`, `common.settings`, `common.standard_streams` and `monitoring`.
"""
