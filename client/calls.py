"""What a thread waits for, and the pieces of it that travel, each to one runner."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from client.rows import Rows
from client.transport_messages import Reply

__all__ = ["Call", "Part"]


class Call:
    """What one thread waits for: the answers to its parts. Guarded by the client's lock."""

    __slots__ = ("is_waiting", "parts", "unanswered", "waiter")

    def __init__(self, waiter: threading.Lock) -> None:
        self.parts: list[Part] = []
        self.unanswered = 0
        """Parts that may still be answered."""
        self.waiter = waiter
        """Held by the thread that waits; released once, when each part is answered or will not be."""
        self.is_waiting = True

    def add(self, pieces: Iterable[Rows]) -> list[Part]:
        """Wait for the answers to these, too; each fits into a message."""
        parts = [Part(rows, self) for rows in pieces]
        self.parts += parts
        self.unanswered += len(parts)
        return parts


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

    def settle(self) -> None:
        """Take note that it is answered, or will not be: after the last one the waiting thread goes on, if there still is one."""
        call = self.call
        call.unanswered -= 1
        if call.unanswered == 0 and call.is_waiting:
            call.is_waiting = False
            call.waiter.release()
