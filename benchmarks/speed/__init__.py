"""`make bench`: throughput, latency, memory and growth beside the peers; writes docs/benchmarks.md from build/bench.

Imports `benchmarks`, `benchmarks.market.learners`, `benchmarks.speed.loads`, `benchmarks.speed.peers.table`, `client`, `common`,
`pipelines.demo.setup`, `pipelines.market`, `pipelines.market.execution.broker`, `pipelines.prices`, `server.config`,
`server.daemon.ray_start`, `server.episodes`, `server.policies.connectors.policy_choice`, `server.runner.env_runner`, `v1` and `tests`.
"""
