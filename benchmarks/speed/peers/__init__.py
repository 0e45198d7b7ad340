"""What users have otherwise, started as processes that measure one window after the other.

Imports RLlib; what runs in the environment of the old Ray imports nothing of this project.
"""
