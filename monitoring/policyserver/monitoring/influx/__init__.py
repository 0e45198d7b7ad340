"""The InfluxDB sink: settings, a spool on disk, requests.

Imports `common.file_lock`, `common.settings` and `monitoring`.
"""
