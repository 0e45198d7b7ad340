"""The node runtime: a named thread with a bounded inbox that handles what it finds there as a batch.

    start() -> handles batches -> request_stop() -> handles what is left -> _stop() -> ended
                 |         ^                                                  ^
               raises -> restarts, at most max_restarts times; then ----------+

A node that never waits may have its batch handled by the thread that brought it (`policyserver.pipelines.runtime.relay`).

A node that raises hands the batch that it had to its supervisor. Once it stays down, its inbox refuses events with `NodeFailedError`, and
the supervisor knows the error. Nothing is lost without being named.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol

from policyserver.pipelines.runtime.inbox import EventT, Inbox, NodeClosedError, NodeConfig, push_together
from policyserver.pipelines.runtime.relay import open_relay, take_lent

logger = logging.getLogger(__name__)


class Supervisor(Protocol):
    """Is told when a node fails or its inbox drops events."""

    def node_failed(self, node: Node[Any], error: BaseException, in_hand: Sequence[Any], *, restarts: bool) -> None:
        """Take the events the node had in hand; none of them was passed on. Called on the thread that had them."""

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

    Subclasses fill in `_process` and `_stop`; the public methods are final. `_process` passes events on *after* it has handled the whole
    batch, so that a failure finds every event of the batch still in its hand.

    One lock guards the inbox and the counters. It is never held while a hook runs, and one thread alone runs `_process` at a time.
    """

    is_lent: ClassVar[bool] = False
    """Whether a thread that passes events on to it may handle them, while its own is at rest. For a node whose `_process` waits for nothing
    and is not called by the time."""

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
        self.name = name
        self.options = options or NodeConfig()
        self.interval_s = interval_s
        self.supervisor = supervisor
        self.inbox: Inbox[EventT] = Inbox(name, self.options, on_drop=self._tell_of_dropped)
        """What waits; others fill it by `push_many` or `policyserver.pipelines.runtime.inbox.push_together`."""
        if self.is_lent:
            if interval_s is not None or type(self)._wait_s is not Node._wait_s:
                raise ValueError(f"node {name}: expected neither interval_s nor a _wait_s hook, for {type(self).__name__}.is_lent is true")
            self.inbox.lends = self
        self._lock = self.inbox.lock
        self._flushes: list[Future[None]] = []
        self._flushing: list[Future[None]] = []
        self._in_hand: Sequence[EventT] = ()
        self._processed = self._failures = self._restarts = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    # Hooks ---------------------------------------------------------------------------------------------------------------------------

    def _process(self, batch: list[EventT]) -> None:
        """Handle the events found in the inbox, oldest first. Must not keep the list."""
        raise NotImplementedError

    def _wait_s(self) -> float | None:
        """Return the longest wait for events, seconds, after which `_process` is called without any; None: any time."""
        return None

    def _stop(self) -> None:
        """Clean up, on the node's thread. Called once, as the last thing, however the node ended."""

    # Life cycle ----------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread. Does nothing if the node was started or stopped before."""
        with self._lock:
            if self._thread.ident is None and not self.inbox.closing:
                self._thread.start()

    def request_stop(self) -> None:
        """Refuse further events; the node handles those it has, then stops. Does not wait; may be called any number of times."""
        with self._lock:
            self.inbox.close()

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

    def push_many(self, events: Sequence[EventT]) -> None:
        """Put events into the inbox, all of them or none.

        Raises:
            InboxFullError: The overflow policy had no room for them.
            NodeClosedError: The node was asked to stop.
            NodeFailedError: The node failed for good.
        """
        push_together([(self.inbox, events)])

    def process_waiting(self) -> None:
        """Handle what is in the inbox on the calling thread: for a node that is never started. Raises what its hook does."""
        with self._lock:
            batch = self.inbox.take()
        if batch:
            self._process(batch)

    def flush(self) -> Future[None]:
        """Return a future that is done when everything pushed before has been handled, or carries the error that prevented it."""
        future: Future[None] = Future()
        with self._lock:
            self.inbox.check_open()
            self._flushes.append(future)
            self.inbox.wake()
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

    def _tell_of_dropped(self, events: Sequence[EventT]) -> None:
        if self.supervisor is not None:
            self.supervisor.events_dropped(self, events)

    def _run(self) -> None:
        try:
            while not self._has_failed():
                try:
                    self._loop()
                    return
                except BaseException as error:  # whatever a hook raised, even SystemExit: it goes to the supervisor
                    if (lent := take_lent()) is not None:
                        lent.give_back()
                    self._recover(error)
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

    def _has_failed(self) -> bool:
        with self._lock:
            return self.inbox.error is not None

    def _loop(self) -> None:
        """Drain and handle until the stop is requested and the inbox is empty, or the node has failed while it was lent."""
        inbox = self.inbox
        while True:
            with self._lock:
                is_due = self._wait_for_work()
                if inbox.error is not None:
                    return
            ended = self._handle_batch(is_due)
            while (lent := take_lent()) is not None:
                if ended or inbox or inbox.closing:
                    lent.give_back()
                else:
                    lent.handle()
            if ended:
                return

    def _handle_batch(self, is_due: bool) -> bool:
        """Handle what is in the inbox; returns whether the node has come to its end. Raises what the hook does."""
        with self._lock:
            batch = self.inbox.take()
            self._flushing = flushes = self._flushes
            self._flushes = []
            self._in_hand = batch
            closing = self.inbox.closing
        if batch or is_due:
            open_relay()
            self._process(batch)
        with self._lock:
            self._in_hand = ()
            self._flushing = []
            self._processed += len(batch)
            ended = closing and not self.inbox
        for future in flushes:
            future.set_result(None)
        return ended

    # Lent to another thread, see `policyserver.pipelines.runtime.relay` ---------------------------------------------------------------

    def handle(self) -> None:
        """Handle what is in the inbox on the calling thread, while this node is lent to it. Never raises."""
        try:
            self._handle_batch(False)
        except BaseException as error:  # as on the node's own thread
            if (lent := take_lent()) is not None:
                lent.give_back()
            self._recover_lent(error)
        inbox = self.inbox
        with self._lock:
            inbox.rest_again()
            if inbox or inbox.closing or self._flushes or inbox.error is not None:
                inbox.wake()

    def _recover_lent(self, error: BaseException) -> None:
        """Recover; if the supervisor raises, fail for good, as the node's own thread would end."""
        try:
            self._recover(error)
        except BaseException as raised:
            logger.exception("node %s: its supervisor failed", self.name)
            with self._lock:
                self.inbox.close(raised)

    def give_back(self) -> None:
        """Let the node's own thread handle what is in the inbox."""
        with self._lock:
            self.inbox.rest_again()
            self.inbox.wake()

    # Inside, on either thread ---------------------------------------------------------------------------------------------------------

    def _wait_for_work(self) -> bool:
        """Wait, with the lock held, for events, a flush, or the stop; return whether `_process` is to be called without events, too."""
        inbox, has_interval = self.inbox, self.interval_s is not None
        wait_s = self.interval_s if has_interval else self._wait_s()
        ends_s = None if wait_s is None else time.monotonic() + wait_s
        while not (inbox.closing or self._flushes or inbox.error is not None or (len(inbox) and not has_interval)):
            left_s = None if ends_s is None else ends_s - time.monotonic()
            if left_s is not None and left_s <= 0.0:
                return True
            inbox.wait(left_s)
        return has_interval

    def _recover(self, error: BaseException) -> None:
        """Count and report a failure; close the inbox if the node does not start again."""
        with self._lock:
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
