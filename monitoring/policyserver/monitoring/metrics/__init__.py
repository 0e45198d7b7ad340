"""OpenMetrics: what a process says of itself at /metrics, /healthz and /readyz.

Imports `common.figures` and `monitoring.sink`.
"""
