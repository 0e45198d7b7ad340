"""The embedded store: one SQLite file, its writer, readers, housekeeping and exports.

Imports `common.file_lock`, `common.settings`, `common.standard_streams`, `common.whole_file` and `monitoring`.
"""
