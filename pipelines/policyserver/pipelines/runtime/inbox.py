"""The inboxes of nodes: bounded, and filled several at a time, all of them or none.

A node that fails gives up the episodes it has in hand. So when it passes a batch on, to several nodes or to several replicas of one, either
all of the batch goes or none of it: otherwise a node could give up an episode on which another one works.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from annotated_types import Ge, Gt

from policyserver.common.settings import Config
from policyserver.pipelines.runtime.relay import Lent, lend

EventT = TypeVar("EventT")

Overflow = Literal["block", "drop_oldest", "fail"]
"""What a push does when the inbox is full: wait for room, at most `push_timeout_s`, and then raise `InboxFullError`; make room by dropping
the oldest events, which go to the supervisor; raise `InboxFullError` at once."""

_ranks = itertools.count()


class NodeError(RuntimeError):
    """Base of the errors of the node runtime."""


class InboxFullError(NodeError):
    """The inbox had no room for the events, none of which it took."""


class NodeClosedError(NodeError):
    """The node was asked to stop before the events came."""


class NodeFailedError(NodeError):
    """The node failed more often than it may be restarted."""


@dataclass(frozen=True, slots=True)
class NodeConfig(Config):
    """How a node's inbox and its restarts behave."""

    capacity: Annotated[int, Ge(1)] = 4096
    """Most events an inbox holds."""
    overflow: Overflow = "block"
    """What happens when it is full: wait for room (block), drop_oldest, or fail."""
    push_timeout_s: Annotated[float, Gt(0)] = 30.0
    """Longest wait for room under `block`, seconds."""
    max_restarts: Annotated[int, Ge(0)] = 3
    """How often a failed node is started again before it stays down."""


class Inbox(Generic[EventT]):
    """What waits for one node. Its lock guards the counters of the node, too."""

    def __init__(self, name: str, options: NodeConfig, *, on_drop: Callable[[Sequence[EventT]], None]) -> None:
        """Make the empty inbox of the node `name`; `on_drop` takes the events that are dropped for newer ones, without the lock."""
        self.lock = threading.Lock()
        self.closing = False
        self.error: BaseException | None = None
        self.queue_max = self.overflowed = 0
        self.rank = next(_ranks)
        """Locks of several inboxes are taken in this order."""
        self.on_drop = on_drop
        self.lends: Lent | None = None
        """Its node, if that may be lent to a thread that pushes; see `policyserver.pipelines.runtime.relay`."""
        self._name = name
        self._options = options
        self._events: list[EventT] = []
        # A lock of its own instead of a condition's: one thread alone waits, and to make a lock for each wait costs three times as much.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._is_waiting = False
        self._room = threading.Condition(self.lock)
        self._pushers_waiting = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def is_waiting(self) -> bool:
        """Whether the node's thread waits, and is neither woken nor kept at rest while the node is lent."""
        return self._is_waiting

    def take(self) -> list[EventT]:
        """Empty it and return what was in it. Under the lock."""
        taken, self._events = self._events, []
        if self._pushers_waiting:
            self._room.notify_all()
        return taken

    def close(self, error: BaseException | None = None) -> None:
        """Refuse events from now on, `error` being why, if the node has failed. Under the lock."""
        self.closing = self.closing or error is None
        self.error = self.error or error
        self.wake()
        self._room.notify_all()

    def wake(self) -> None:
        """End the wait of the node's thread, if it waits. Under the lock."""
        if self._is_waiting:
            self._is_waiting = False
            self._bell.release()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for `wake`, which each push calls, or the end of the time. One thread at a time, under the lock."""
        self._is_waiting = True
        self.lock.release()
        try:
            woken = self._bell.acquire(timeout=-1 if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX))
        finally:
            self.lock.acquire()
        if not (woken or self._is_waiting):  # woken between the end of the time and the lock
            self._bell.acquire()
        self._is_waiting = False

    def check_open(self) -> None:
        """Raise NodeFailedError or NodeClosedError unless events are taken. Under the lock."""
        if self.error is not None:
            raise NodeFailedError(f"node {self._name} failed for good: {self.error!r}") from self.error
        if self.closing:
            raise NodeClosedError(f"node {self._name} takes no more events: it was asked to stop")

    def has_room(self, count: int) -> bool:
        """Tell whether so many events could be put, if need be by dropping others. Under the lock."""
        kept = 0 if self._options.overflow == "drop_oldest" else len(self._events)
        return kept + count <= self._options.capacity

    def put_at_once(self, events: Sequence[EventT]) -> bool:
        """Take events if that is all there is to it: the inbox is open, and has room. Takes the lock; returns whether it has taken them."""
        with self.lock:
            waiting = self._events
            count = len(waiting) + len(events)
            if self.closing or self.error is not None or count > self._options.capacity:
                return False
            waiting.extend(events)
            if count > self.queue_max:
                self.queue_max = count
            if self._is_waiting:
                self._is_waiting = False
                if self.lends is None or not lend(self.lends):
                    self._bell.release()
        return True

    def rest_again(self) -> None:
        """Let the wait of the node's thread, which a push that lent the node has kept up, go on as before. Under the lock."""
        self._is_waiting = True

    def put(self, events: Sequence[EventT]) -> Sequence[EventT]:
        """Take events for which there is room; return what was dropped for them. Under the lock."""
        excess = len(self._events) + len(events) - self._options.capacity
        dropped: Sequence[EventT] = ()
        if excess > 0:
            dropped = self._events[:excess]
            self.overflowed += len(events)
            del self._events[:excess]
        self._events.extend(events)
        if len(self._events) > self.queue_max:
            self.queue_max = len(self._events)
        self.wake()
        return dropped

    def wait_for_room(self, count: int, deadline: float | None) -> float:
        """Wait until there is room for so many events, or the inbox is closed; return when this wait ends at the latest.

        Args:
            count: how many.
            deadline: what an earlier wait of the same push returned; None: it is the first.

        Raises:
            InboxFullError: There was none in time, or is not to be waited for.
        """
        with self.lock:
            options = self._options
            if deadline is None:
                self.overflowed += count
                deadline = time.monotonic() + options.push_timeout_s
            full = f"inbox of node {self._name}: {len(self._events)} of {options.capacity} events waiting, no room for {count} more"
            if count > options.capacity or options.overflow == "fail":
                raise InboxFullError(full)
            self._pushers_waiting += 1
            try:
                left_s = max(0.0, deadline - time.monotonic())
                if self._room.wait_for(lambda: self.closing or self.error is not None or self.has_room(count), left_s):
                    return deadline
            finally:
                self._pushers_waiting -= 1
            raise InboxFullError(f"{full} within {options.push_timeout_s} s")


Share = tuple[Inbox[Any], Sequence[Any]]
"""The inbox of a node, and the events that are for it."""


def push_together(shares: Iterable[Share]) -> None:
    """Put events into several inboxes, each of which comes once: all of them or none.

    Raises:
        InboxFullError: An overflow policy had no room for them.
        NodeClosedError: A node was asked to stop.
        NodeFailedError: A node failed for good.
    """
    shares = [share for share in shares if share[1]]
    if len(shares) == 1 and shares[0][0].put_at_once(shares[0][1]):
        return
    shares.sort(key=lambda share: share[0].rank)
    deadline: float | None = None
    while True:
        with ExitStack() as locks:
            full = _first_without_room(shares, locks)
            if full is None:
                dropped = [(inbox, inbox.put(events)) for inbox, events in shares]
                break
        deadline = full[0].wait_for_room(len(full[1]), deadline)
    for inbox, events in dropped:
        if events:
            inbox.on_drop(events)


def _first_without_room(shares: Sequence[Share], locks: ExitStack) -> Share | None:
    """Lock the inboxes and return a share for which there is no room, None if all could be put. Raises as `push_together` does."""
    for inbox, _ in shares:
        locks.enter_context(inbox.lock)
    for inbox, _ in shares:
        inbox.check_open()
    return next((share for share in shares if not share[0].has_room(len(share[1]))), None)
