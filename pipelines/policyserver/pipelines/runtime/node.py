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
from typing import Any, Generic, Protocol

from policyserver.pipelines.runtime.inbox import (
    EventT,
    Inbox,
    NodeClosedError,
    NodeConfig,
    NodeError,
    push_together,
)

logger = logging.getLogger(__name__)


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


class Supervisor(Protocol):
    """Who is told when a node fails or its inbox drops events."""

    def node_failed(self, node: Node[Any], error: BaseException, in_hand: Sequence[Any], *, restarts: bool) -> None:
        """Take the events the node had in hand; none of them was passed on. Called on the node's thread."""

    def events_dropped(self, node: Node[Any], events: Sequence[Any]) -> None:
        """Take the events that a full inbox dropped. Called on the thread that pushed."""


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
        self, name: str, options: NodeConfig | None = None, *, interval_s: float | None = None, supervisor: Supervisor | None = None
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
        self.options = options or NodeConfig()
        self.interval_s = interval_s
        self.supervisor = supervisor
        self.inbox: Inbox[EventT] = Inbox(name, self.options, wakes=interval_s is None)
        """What waits; others fill it by `push_many` or `policyserver.pipelines.runtime.inbox.push_together`."""
        self._lock = self.inbox.lock
        self._ready = self.inbox.ready
        self._flushes: list[Future[None]] = []
        self._flushing: list[Future[None]] = []
        self._in_hand: Sequence[EventT] = ()
        self._state = NodeState.NEW
        self._processed = self._failures = self._restarts = 0
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
            self.inbox.close()
            if self._state is NodeState.NEW:
                self._enter(NodeState.STOPPED)

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
        push_together([(self, events)])

    def give_up(self, events: Sequence[EventT]) -> None:
        """Tell the supervisor that the inbox has dropped events."""
        if self.supervisor is not None:
            self.supervisor.events_dropped(self, events)

    def flush(self) -> Future[None]:
        """Return a future that is done when everything pushed before has been handled, or carries the error that prevented it."""
        future: Future[None] = Future()
        with self._lock:
            self.inbox.check_open()
            self._flushes.append(future)
            self._ready.notify()
        return future

    @property
    def waiting(self) -> int:
        """Events in the inbox now."""
        return len(self.inbox)

    @property
    def error(self) -> BaseException | None:
        """Why it failed for good, if it did."""
        return self.inbox.error

    def statistics(self) -> NodeStatistics:
        """Return the counters as they stand."""
        inbox = self.inbox
        with self._lock:
            return NodeStatistics(self.name, 1, self._processed, inbox.queue_max, inbox.overflowed, self._failures, self._restarts)

    # Inside --------------------------------------------------------------------------------------------------------------------------

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
                self.inbox.close()
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
                batch = self.inbox.take()
                self._flushing = flushes = self._flushes
                self._flushes = []
                self._in_hand = batch
                closing = self.inbox.closing
            if batch or self.interval_s is not None:
                self._process(batch)
            with self._lock:
                self._in_hand = ()
                self._flushing = []
                self._processed += len(batch)
                ended = closing and not self.inbox
                if ended:
                    self._enter(NodeState.STOPPING)
            for future in flushes:
                future.set_result(None)
            if ended:
                return
            due = time.monotonic() + (self.interval_s or 0.0)

    def _wait_for_work(self, due: float) -> None:
        """Wait, with the lock held, for events, a flush, the stop, or the end of the interval."""
        while not (self.inbox.closing or self._flushes):
            if self.interval_s is None:
                if self.inbox:
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
                in_hand = [*in_hand, *self.inbox.take()]
                self.inbox.close(error)
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
