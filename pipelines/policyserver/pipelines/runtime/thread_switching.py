"""How often threads take turns: what every command that runs nodes sets."""

SWITCH_INTERVAL_S = 0.001
"""How long a thread computes before another may, seconds: Python's default of 5 ms would be felt in the latency of actions."""
