"""`make bench`: throughput, latency, memory and growth beside the peers; writes docs/benchmarks.md from build/bench.

Imports `benchmarks`, `benchmarks.market.learners`, `benchmarks.speed.loads`, `benchmarks.speed.peers.table`, `client`, `common`,
`monitoring.points`, `monitoring.sink`, `pipelines`, `pipelines.demo.setup`, `pipelines.forecast`, `pipelines.market`,
`pipelines.market.execution.account_config`, `pipelines.prices`, `pipelines.runtime.thread_switching`, `server.config`,
`server.daemon.ray_start`, `server.episodes`, `server.policies.connectors.policy_choice`, `server.runner.env_runner`, `v1` and `tests`.
"""
