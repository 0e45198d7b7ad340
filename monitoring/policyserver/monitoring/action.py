"""The decisions of a trading policy, by the number that is sent, learned from and recorded."""

from __future__ import annotations

from enum import IntEnum


class Action(IntEnum):
    """A decision about the position in one symbol."""

    SELL = 0
    """Go to one unit short."""
    HOLD = 1
    """Keep the position."""
    BUY = 2
    """Go to one unit long."""

    @property
    def label(self) -> str:
        """Name in tables, pages and queries."""
        return self.name.lower()


ACTIONS_TEXT = ", ".join(f"{action:d} {action.label}" for action in Action)
"""All actions in words, for descriptions and errors."""
