"""How a server grows: calculated from what `make bench` measured on one machine; writes docs/scaling.md. What passes through the driver is measured.

Imports `tests.cluster`.
"""
