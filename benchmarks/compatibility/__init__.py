"""`make compatibility`: each algorithm on each kind of space and model; writes docs/compatibility.md from build/compatibility.

Imports `benchmarks`, `client`, `server.config`, `server.daemon.ray_start`, `server.daemon.training_hooks` and `server.runner.env_runner`.
"""
