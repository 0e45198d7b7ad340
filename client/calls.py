"""What a thread waits for, and the pieces of it that travel."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from client.rows import Rows
from client.transport_messages import Reply

__all__ = ["Call", "Part"]


class Call:
    """What one thread waits for: the answers to its parts. Guarded by the transport's lock."""

    __slots__ = ("is_waiting", "parts", "unanswered", "waiter")

    def __init__(self, parts: Sequence[Rows], waiter: threading.Lock) -> None:
        self.parts = [Part(rows, self) for rows in parts]
        self.unanswered = len(self.parts)
        self.waiter = waiter
        """Held by the thread that waits; released once, when all parts are answered or none of the others will be."""
        self.is_waiting = True

    def wake(self) -> None:
        """Let the waiting thread go on, if there is one."""
        if self.is_waiting:
            self.is_waiting = False
            self.waiter.release()


class Part:
    """Rows of one call that travel in one message."""

    __slots__ = ("call", "epoch", "first", "reply", "rows")

    def __init__(self, rows: Rows, call: Call) -> None:
        self.rows = rows
        self.call = call
        self.reply: Reply | None = None
        self.first = 0
        """Place of its first row in the reply."""
        self.epoch = 0
        """Of the server that answered."""
