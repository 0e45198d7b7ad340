"""The guard on learning: what looks at each update of the learner before it is served.

Imports `server.config.guard_config`.
"""
