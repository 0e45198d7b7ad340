"""How a server grows: calculated from what `make bench` measured on one machine; writes docs/scaling.md.

Imports nothing of ours.
"""
