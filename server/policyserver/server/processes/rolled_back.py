"""What a serving process answers when the daemon has it serve an earlier state."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RolledBack:
    """What a serving instance says of a roll-back."""

    weights_seq_no: int
    """Policy version that it serves now."""
    weights_sha256: str
    """Sum of the weights that it serves, see `sha256_of_weights`."""
    steps_dropped: int
    """Recorded steps that were dropped."""
