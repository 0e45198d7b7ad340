"""How the daemon knows of steps that a serving actor handed off and that never arrived: they were on their way when the network was cut."""

from __future__ import annotations

HAND_OFF = "policyserver_hand_off"
"""Key beside the metrics of a `sample()` by which an actor of a cluster says its boot id, and how many steps it has handed off since it
began. The daemon takes it out before RLlib sees the metrics."""
