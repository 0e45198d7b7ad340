"""How a server grows: calculated from what `make bench` measured on one machine, and what passes through the driver, measured.

Writes docs/scaling.md.

Imports `benchmarks` and `tests.cluster`.
"""
