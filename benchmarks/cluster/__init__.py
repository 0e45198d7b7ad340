"""A server on several hosts that are made of namespaces: what fails and what that costs, and what an action takes of its actors.

Needs Linux and root, as `make test-cluster` does.

Imports `benchmarks`, `benchmarks.scaling`, `client`, `monitoring.store.reader`, `tests.cluster.cluster` and `tests.cluster.hosts`.
"""
