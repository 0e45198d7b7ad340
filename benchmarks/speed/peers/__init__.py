"""What users have otherwise, started as processes that measure one window after the other.

What runs in the environment of the old Ray imports nothing of this project.

Imports `benchmarks` and `tests.ports`.
"""
