"""`make learn`: the demo's problem with its controls, its scale, and beside RLlib's default settings; writes docs/learning.md.

Imports `benchmarks`, `common.settings`, `monitoring`, `monitoring.store.reader`, `pipelines`, `pipelines.demo` and `pipelines.runtime`.
"""
