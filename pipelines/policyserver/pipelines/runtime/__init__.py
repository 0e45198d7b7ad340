"""What runs nodes as threads: their base, inboxes, groups, routes and watch.

Imports `policyserver.common`, `policyserver.monitoring` and, where events are routed and nodes watched, what the pipeline declares.
"""
