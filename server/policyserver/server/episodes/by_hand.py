"""How many of their actions clients chose themselves: a person, or a limit on risk."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MOST_CLIENTS = 100
"""Clients that are told of. Each chooses its own id, of at most 256 bytes."""


@dataclass(slots=True)
class HandCounts:
    """What is counted of one client."""

    actions: int = 0
    """Actions that it was answered."""
    given: int = 0
    """Actions that it chose itself, overrides among them; each once."""
    overridden: int = 0
    """Times that it chose another action than the one that it was answered."""


class ByHand:
    """Keep the counts of clients that chose actions themselves, beyond their connections. Owned by the loop thread.

    Overflow policy: the client whose newest action of its own is the oldest makes room, and is counted in `dropped`.
    """

    def __init__(self) -> None:
        self._counts: OrderedDict[str, HandCounts] = OrderedDict()
        self.dropped = 0

    def counts_of(self, client_id: str) -> HandCounts:
        """Return what was counted of a client; of one that chose no action so far, counts to go on with."""
        return self._counts.get(client_id) or HandCounts()

    def note(self, client_id: str, counts: HandCounts) -> None:
        """Note that a client chose an action itself."""
        self._counts[client_id] = counts
        self._counts.move_to_end(client_id)
        if len(self._counts) > MOST_CLIENTS:
            self._counts.popitem(last=False)
            self.dropped += 1

    def report(self) -> dict[str, tuple[int, int, int]]:
        """Return actions, those given, and overrides of each client that is kept."""
        return {client_id: (each.actions, each.given, each.overridden) for client_id, each in self._counts.items()}
