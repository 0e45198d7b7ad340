"""The admin service's two ends: what answers in the server's first process, and the command `policy-server ctl` that asks.

What an answer takes is in `daemon/serving_answers.py`.

Imports `common`, `server.config` and `v1`.
"""
