"""What the daemon and a serving actor say to one another when the actor is to be replaced."""

from __future__ import annotations

from typing import Literal, NamedTuple

Phase = Literal["", "retire", "stay", "leave", "end"]
"""Nothing; start no new episodes; go on as before that; end the open ones and give everything to the learner; end, whatever is lost."""


class RetirementOrder(NamedTuple):
    """What one actor is to do; the others, and another process in its place, only say how they are."""

    number: int
    phase: Phase
    boot_id: str = ""
    """The process that is meant: an order may arrive late, when its successor is there."""


class RetirementState(NamedTuple):
    """How far an actor is."""

    number: int
    boot_id: str
    addresses: tuple[str, ...]
    """Where it serves; empty before it does."""
    episodes_open: int
    steps_waiting: int
    """Steps that the learner has not taken."""
    episodes_unreported: int
    """Ended episodes of which the daemon has not been told."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be lost with the process."""
        return not (self.episodes_open or self.steps_waiting or self.episodes_unreported)
