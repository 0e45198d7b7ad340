"""The configuration of a server, its defaults, and RLlib's AlgorithmConfig made from it.

Imports `common`, `common.acting.action_form`, `monitoring.page.listen`, `monitoring.recording` and
`server.policies.vectorized.scale_images`.
"""
