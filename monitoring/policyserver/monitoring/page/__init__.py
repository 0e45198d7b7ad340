"""The live page: a small web server that shows an embedded store while it grows.

Imports `common.certificates`, `common.endpoints`, `common.listening`, `common.settings`, `monitoring`, `monitoring.panels` and
`monitoring.store`.
"""
