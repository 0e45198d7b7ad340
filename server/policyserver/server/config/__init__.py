"""The configuration of a server, its defaults, and RLlib's AlgorithmConfig made from it.

Imports `common`, `monitoring.page.listen`, `monitoring.recording`, `server.policies.module.action_form` and
`server.policies.vectorized.scale_images`.
"""
