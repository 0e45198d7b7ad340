"""A thread that passes events on goes on with them itself, where the next node is at rest and never waits.

To wake another thread for each node of a bar costs more than what most nodes do in it, and the other thread begins with cold caches: a
lone row's bar takes half as long on one thread. So a push to such a node wakes no thread. The node is lent to the thread that pushes, which
handles the events after its own batch, as the node's own thread would; meanwhile further events wait in the inbox, as they do behind any
batch. At most one node is lent to a thread at a time, and only while nothing waits for the thread's own node.
"""

from __future__ import annotations

import threading
from typing import Protocol


class Lent(Protocol):
    """A node whose own thread is at rest until `handle` or `give_back` returns."""

    def handle(self) -> None:
        """Handle what is in its inbox on the calling thread, once. Never raises."""

    def give_back(self) -> None:
        """Let its own thread handle what is in its inbox."""


class _Relay(threading.local):
    """Of the calling thread."""

    is_open = False
    """Whether it handles a batch, so that it will look for what it was lent."""
    lent: Lent | None = None


_relay = _Relay()


def open_relay() -> None:
    """Begin a batch on the calling thread: one node may be lent to it."""
    _relay.is_open = True


def lend(node: Lent) -> bool:
    """Lend a node to the calling thread, if it takes one; returns whether it does."""
    if not _relay.is_open:
        return False
    _relay.is_open = False
    _relay.lent = node
    return True


def take_lent() -> Lent | None:
    """End the batch of the calling thread; returns the node that it was lent."""
    _relay.is_open = False
    lent, _relay.lent = _relay.lent, None
    return lent
