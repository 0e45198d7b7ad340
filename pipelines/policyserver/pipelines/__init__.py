"""The trading application: prices, nodes, portfolio, rewards.

Imports `policyserver.client`, `policyserver.common` and `policyserver.monitoring`; of the server nothing.
"""
