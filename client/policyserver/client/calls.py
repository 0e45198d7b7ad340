"""What a thread waits for, and the pieces of it that travel, each to one runner."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Protocol

from policyserver.client.messages import Reply
from policyserver.client.rows import OutgoingRows

__all__ = ["Call", "CallPart", "Home"]


class Home(Protocol):
    """Where a call's thread is likely to ask next: the connection of its first part."""

    callers_waking: int
    """Callers at home there that were answered and are about to go on."""


class Call:
    """What one thread waits for: the answers to its parts. Guarded by the client's lock."""

    __slots__ = ("home", "is_waiting", "parts", "unanswered", "waiter")

    def __init__(self, waiter: threading.Lock) -> None:
        self.parts: Sequence[CallPart] = ()
        self.home: Home
        """Set with the first part."""
        self.unanswered = 0
        """Parts that may still be answered."""
        self.waiter = waiter
        """Held by the thread that waits; released once, by the wake-up queue, when each part is answered or will not be."""
        self.is_waiting = True
        """There is something to wait for, and somebody who does."""

    def add(self, pieces: Iterable[OutgoingRows]) -> list[CallPart]:
        """Wait for the answers to these, too; each fits into a message."""
        parts = [CallPart(rows, self) for rows in pieces]
        self.parts = [*self.parts, *parts]
        if len(self.parts) == len(parts) > 0:
            self.home = parts[0].rows.connection
        self.unanswered += len(parts)
        return parts

    def add_one(self, rows: OutgoingRows, home: Home) -> CallPart:
        """Wait for the answer to this alone; it fits into a message."""
        part = CallPart(rows, self)
        self.parts = (part,)
        self.home = home
        self.unanswered = 1
        return part


class CallPart:
    """Rows of one call that travel in one message."""

    __slots__ = ("call", "epoch", "first", "reply", "rooms", "rows")

    def __init__(self, rows: OutgoingRows, call: Call) -> None:
        self.rows = rows
        self.call = call
        self.reply: Reply | None = None
        self.first = 0
        """Place of its first row in the reply."""
        self.epoch = 0
        """Of the server that answered."""
        self.rooms = 0
        """How often that had said before the answer that there is room."""

    def settle(self) -> bool:
        """Take note that it is answered, or will not be. Returns whether it was the last that somebody waits for."""
        call = self.call
        call.unanswered -= 1
        if call.unanswered == 0 and call.is_waiting:
            call.is_waiting = False
            return True
        return False
