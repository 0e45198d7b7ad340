"""The trading application: prices, nodes, portfolio, rewards. Imports client, policyserver and monitoring."""
