"""`make algorithms`: each algorithm learns alone and over gRPC, on the same seeds; writes docs/algorithms.md from build/learning.

The players, which are processes of their own, need the client alone.

Imports `benchmarks`, `client`, `common.settings`, `server.config`, `server.daemon.ray_start`, `server.guard.kept_state`,
`server.guard.return_judge`, `server.guard.update_guard` and `tests.live_server`.
"""
