"""`make learn`: the demo's problem with its controls, its scale, and beside RLlib's default settings; writes docs/learning.md.

Imports the pipelines, whose demo it runs, and reads their records.
"""
