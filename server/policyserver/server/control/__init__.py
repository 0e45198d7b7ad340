"""The admin service's two ends: what answers in the process that learns, and the command `policy-server ctl` that asks.

What an answer takes is in `daemon/controller.py`.

Imports `common`, `server.config` and `v1`.
"""
