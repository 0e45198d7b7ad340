"""How a server grows: calculated from what `make bench` and `benchmarks.cluster` measured on one machine; writes docs/scaling.md.

Imports `benchmarks`.
"""
