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
    """Ended episodes of which the daemon has not said that it knows them."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be lost with the process."""
        return not (self.needs_learner or self.episodes_unreported)

    @property
    def needs_learner(self) -> bool:
        """Whether it has or will have steps that the learner is to take."""
        return bool(self.episodes_open or self.steps_waiting)

    @property
    def losses(self) -> str:
        """What would be lost with the process, in words."""
        lost = {
            "steps that are lost to the learner": self.steps_waiting,
            "ended episodes that are not recorded": self.episodes_unreported,
        }
        return " and ".join(f"{count} {what}" for what, count in lost.items() if count) or "nothing that is lost"
