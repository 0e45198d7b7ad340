"""What runs nodes as threads: their base, inboxes, groups, routes and watch.

Imports `common.settings`, `monitoring`, `pipelines` and `pipelines.nodes.policy_node`.
"""
