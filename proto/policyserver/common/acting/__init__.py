"""From an observation to an action in plain numpy: what the serving process and a policy that was taken away have in common.

Imports `common`.
"""
