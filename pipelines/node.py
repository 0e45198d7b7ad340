"""The node runtime: a named thread with a bounded inbox that handles what it finds there as a batch.

    new --start--> starting ------> running --request_stop--> stopping --> stopped
                      |  ^            |                                      ^
                    fails+-restart-+  fails                                  |
                      |            |  |                                      |
                      +----------> failed --no restarts left-----------------+

A node that raises hands the batch it had to its supervisor and starts again, at most `max_restarts` times; after that it stays down,
its inbox refuses events with `NodeFailedError`, and the supervisor knows the error. Nothing is lost without being named.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

logger = logging.getLogger(__name__)

EventT = TypeVar("EventT")


class NodeState(Enum):
    """Where a node is in its life."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FAILED = "failed"
    STOPPED = "stopped"


_NEXT_STATES: dict[NodeState, frozenset[NodeState]] = {
    NodeState.NEW: frozenset({NodeState.STARTING, NodeState.STOPPED}),
    NodeState.STARTING: frozenset({NodeState.RUNNING, NodeState.FAILED}),
    NodeState.RUNNING: frozenset({NodeState.STOPPING, NodeState.FAILED}),
    NodeState.STOPPING: frozenset({NodeState.STOPPED}),
    NodeState.FAILED: frozenset({NodeState.STARTING, NodeState.STOPPED}),
    NodeState.STOPPED: frozenset(),
}


Overflow = Literal["block", "drop_oldest", "fail"]
"""What `push` does when the inbox is full: wait for room, at most `push_timeout_s`, and then raise `InboxFullError`; make room by dropping
the oldest events, which go to the supervisor; raise `InboxFullError` at once."""


class NodeError(RuntimeError):
    """Base of the errors of the node runtime."""


class InboxFullError(NodeError):
    """The inbox had no room for the events, none of which it took."""


class NodeClosedError(NodeError):
    """The node was asked to stop before the events came."""


class NodeFailedError(NodeError):
    """The node failed more often than it may be restarted."""


class Supervisor(Protocol):
    """Who is told when a node fails or its inbox drops events."""

    def node_failed(self, node: Node[Any], error: BaseException, in_hand: Sequence[Any], *, restarts: bool) -> None:
        """Take the events the node had in hand; none of them was passed on. Called on the node's thread."""

    def events_dropped(self, node: Node[Any], events: Sequence[Any]) -> None:
        """Take the events that a full inbox dropped. Called on the thread that pushed."""


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """How a node's inbox and its restarts behave."""

    capacity: int = 4096
    """Most events an inbox holds."""
    overflow: Overflow = "block"
    """What happens when it is full: wait for room (block), drop_oldest, or fail."""
    push_timeout_s: float = 30.0
    """Longest wait for room under `block`, seconds."""
    max_restarts: int = 3
    """How often a failed node is started again before it stays down."""

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(f"capacity: expected at least 1, received {self.capacity}")
        if self.overflow not in get_args(Overflow):
            raise ValueError(f"overflow: expected one of {', '.join(get_args(Overflow))}, received {self.overflow!r}")
        if self.push_timeout_s <= 0:
            raise ValueError(f"push_timeout_s: expected more than 0, received {self.push_timeout_s}")
        if self.max_restarts < 0:
            raise ValueError(f"max_restarts: expected at least 0, received {self.max_restarts}")


@dataclass(frozen=True, slots=True)
class NodeStatistics:
    """Counters of a node, or of all replicas of one."""

    name: str
    """Name of the node or the group."""
    threads: int
    """Number of its threads."""
    processed: int
    """Events handled."""
    queue_max: int
    """Most events that waited in one inbox at a time."""
    overflowed: int
    """Events that met a full inbox."""
    failures: int
    """Errors raised by its hooks."""
    restarts: int
    """How often it was started again after one."""


class Node(Generic[EventT]):
    """A daemon thread that drains a bounded inbox and handles what it found as one batch.

    Subclasses fill in `_start`, `_process` and `_stop`; the public methods are final. `_process` passes events on with the `push_many`
    of another node *after* it has handled the whole batch, so that a failure finds every event of the batch still in its hand.

    One lock guards the inbox, the state and the counters. It is never held while a hook runs.
    """

    def __init__(
        self, name: str, options: NodeOptions | None = None, *, interval_s: float | None = None, supervisor: Supervisor | None = None
    ) -> None:
        """Make a node that has not started.

        Args:
            name: Name of the node and its thread.
            options: Size and overflow of the inbox, number of restarts.
            interval_s: None: `_process` is called as soon as there are events. A number: it is called that often, with whatever came
                meanwhile, if need be with an empty batch. Seconds.
            supervisor: Told of failures and dropped events.
        """
        if interval_s is not None and interval_s <= 0:
            raise ValueError(f"interval_s: expected more than 0, received {interval_s}")
        self.name = name
        self.options = options or NodeOptions()
        self.interval_s = interval_s
        self.supervisor = supervisor
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._inbox: list[EventT] = []
        self._flushes: list[Future[None]] = []
        self._flushing: list[Future[None]] = []
        self._in_hand: Sequence[EventT] = ()
        self._closing = False
        self._state = NodeState.NEW
        self._pushers_waiting = 0
        self._processed = self._queue_max = self._overflowed = self._failures = self._restarts = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    # Hooks ---------------------------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Prepare, on the node's thread. Called again after a failure."""

    def _process(self, batch: list[EventT]) -> None:
        """Handle the events found in the inbox, oldest first. Must not keep the list."""
        raise NotImplementedError

    def _stop(self) -> None:
        """Clean up, on the node's thread. Called once, as the last thing, however the node ended."""

    # Life cycle ----------------------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> NodeState:
        """Where the node is in its life."""
        return self._state

    def start(self) -> None:
        """Start the thread. Starting a started node does nothing."""
        with self._lock:
            if self._state is not NodeState.NEW:
                return
            self._enter(NodeState.STARTING)
        self._thread.start()

    def request_stop(self) -> None:
        """Refuse further events; the node handles those it has, then stops. Does not wait; may be called any number of times."""
        with self._lock:
            self._closing = True
            if self._state is NodeState.NEW:
                self._enter(NodeState.STOPPED)
            self._ready.notify_all()
            self._room.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end. Returns whether it has."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Request the stop and wait for it. Returns whether the node has stopped in time."""
        self.request_stop()
        return self.join(timeout_s)

    # Inbox ---------------------------------------------------------------------------------------------------------------------------

    def push(self, event: EventT) -> None:
        """Put one event into the inbox; see `push_many`."""
        self.push_many((event,))

    def push_many(self, events: Sequence[EventT]) -> None:
        """Put events into the inbox, all of them or none.

        Raises:
            InboxFullError: The overflow policy had no room for them.
            NodeClosedError: The node was asked to stop.
            NodeFailedError: The node failed for good.
        """
        if not events:
            return
        dropped: Sequence[EventT] = ()
        with self._lock:
            if len(self._inbox) + len(events) > self.options.capacity:
                dropped = self._overflow(len(events))
            self._check_open()
            was_empty = not self._inbox
            self._inbox.extend(events)
            if len(self._inbox) > self._queue_max:
                self._queue_max = len(self._inbox)
            if was_empty and self.interval_s is None:
                self._ready.notify()
        if dropped and self.supervisor is not None:
            self.supervisor.events_dropped(self, dropped)

    def flush(self) -> Future[None]:
        """Return a future that is done when everything pushed before has been handled, or carries the error that prevented it."""
        future: Future[None] = Future()
        with self._lock:
            self._check_open()
            self._flushes.append(future)
            self._ready.notify()
        return future

    @property
    def waiting(self) -> int:
        """Events in the inbox now."""
        return len(self._inbox)

    def statistics(self) -> NodeStatistics:
        """Return the counters as they stand."""
        with self._lock:
            return NodeStatistics(self.name, 1, self._processed, self._queue_max, self._overflowed, self._failures, self._restarts)

    # Inside --------------------------------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self.error is not None:
            raise NodeFailedError(f"node {self.name} failed for good: {self.error!r}") from self.error
        if self._closing:
            raise NodeClosedError(f"node {self.name} takes no more events: it was asked to stop")

    def _overflow(self, count: int) -> Sequence[EventT]:
        """Make room for `count` events by the overflow policy and return what was dropped. The lock is held."""
        self._overflowed += count
        capacity, policy = self.options.capacity, self.options.overflow
        full = f"inbox of node {self.name}: {len(self._inbox)} of {capacity} events waiting, no room for {count} more"
        if count > capacity or policy == "fail":
            raise InboxFullError(full)
        if policy == "drop_oldest":
            excess = len(self._inbox) + count - capacity
            dropped = self._inbox[:excess]
            del self._inbox[:excess]
            return dropped
        self._pushers_waiting += 1
        try:
            room = self._room.wait_for(
                lambda: self._closing or self.error is not None or len(self._inbox) + count <= capacity, self.options.push_timeout_s
            )
        finally:
            self._pushers_waiting -= 1
        if not room:
            raise InboxFullError(f"{full} within {self.options.push_timeout_s} s")
        return ()

    def _enter(self, state: NodeState) -> None:
        """Change the state; the lock is held (or the thread has not begun)."""
        if state not in _NEXT_STATES[self._state]:
            raise NodeError(f"node {self.name}: no way from {self._state.value} to {state.value}")
        self._state = state

    def _run(self) -> None:
        try:
            while True:
                try:
                    self._start()
                    with self._lock:
                        self._enter(NodeState.RUNNING)
                    self._loop()
                    return
                except BaseException as error:  # whatever a hook raised, even SystemExit: it goes to the supervisor
                    if not self._recover(error):
                        return
        finally:
            with self._lock:
                self._closing = True
                waiting, self._flushes = self._flushes, []
            for future in waiting:
                future.set_exception(self.error or NodeClosedError(f"node {self.name} has stopped"))
            try:
                self._stop()
            except Exception:
                logger.exception("node %s: its _stop hook failed", self.name)
            with self._lock:
                self._enter(NodeState.STOPPED)

    def _loop(self) -> None:
        """Drain and handle until the stop is requested and the inbox is empty."""
        due = time.monotonic() + (self.interval_s or 0.0)
        while True:
            with self._lock:
                self._wait_for_work(due)
                batch, self._inbox = self._inbox, []
                self._flushing = flushes = self._flushes
                self._flushes = []
                self._in_hand = batch
                closing = self._closing
                if self._pushers_waiting:
                    self._room.notify_all()
            if batch or self.interval_s is not None:
                self._process(batch)
            with self._lock:
                self._in_hand = ()
                self._flushing = []
                self._processed += len(batch)
                ended = closing and not self._inbox
                if ended:
                    self._enter(NodeState.STOPPING)
            for future in flushes:
                future.set_result(None)
            if ended:
                return
            due = time.monotonic() + (self.interval_s or 0.0)

    def _wait_for_work(self, due: float) -> None:
        """Wait, with the lock held, for events, a flush, the stop, or the end of the interval."""
        while not (self._closing or self._flushes):
            if self.interval_s is None:
                if self._inbox:
                    return
                self._ready.wait()
            else:
                left = due - time.monotonic()
                if left <= 0:
                    return
                self._ready.wait(left)

    def _recover(self, error: BaseException) -> bool:
        """Count and report a failure; return whether the node starts again."""
        with self._lock:
            self._enter(NodeState.FAILED)
            self._failures += 1
            in_hand, self._in_hand = self._in_hand, ()
            flushes, self._flushing, self._flushes = self._flushing + self._flushes, [], []
            again = self._restarts < self.options.max_restarts
            if again:
                self._restarts += 1
            else:  # what still waits in the inbox is lost with the node: hand it over too
                self.error = error
                in_hand = [*in_hand, *self._inbox]
                self._inbox = []
                self._room.notify_all()
        logger.error(
            "node %s failed with %d events in hand, %s", self.name, len(in_hand), "restarting" if again else "for good", exc_info=error
        )
        for future in flushes:
            future.set_exception(error)
        if self.supervisor is not None:
            self.supervisor.node_failed(self, error, in_hand, restarts=again)
        if again:
            with self._lock:
                self._enter(NodeState.STARTING)
        return again
