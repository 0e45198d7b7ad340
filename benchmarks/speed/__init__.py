"""`make bench`: throughput, latency, memory and growth beside the peers; writes docs/benchmarks.md from build/bench.

Imports the other files of `benchmarks`, the client, the server, and the demo's settings.
"""
