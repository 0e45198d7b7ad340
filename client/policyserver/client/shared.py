"""What the connections of one client have in common: its lock, its counters, and the processor core of its threads."""

from __future__ import annotations

import logging
import os
import sys
import threading

from policyserver.client.messages import Reply
from policyserver.client.wake_up_queue import WakeUpQueue

_log = logging.getLogger(__name__)


class ProcessorCore:
    """The core that a client's threads share, if one is configured.

    Python runs one thread at a time. A thread that is woken while another core is idle moves there, where it wakes up several times slower
    and finds a cold cache; on the core of the thread that woke it, it goes on at once.
    """

    def __init__(self, core: int | None) -> None:
        """Choose the core.

        Args:
            core: its number; None leaves every thread where the system puts it.

        Raises:
            ValueError: this process may not use that core, or the system binds no threads (sched_setaffinity(2): Linux).
        """
        self._core = core
        self._bound = threading.local()
        if core is None:
            return
        if sys.platform != "linux":
            raise ValueError(f"callers_core: expected None on {sys.platform}, which binds no threads, received {core}")
        before = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {core})  # what this thread may use now says nothing: another client may have bound it
        except (OSError, OverflowError) as error:
            raise ValueError(f"callers_core: expected a core that this process may use, received {core}: {error}") from error
        os.sched_setaffinity(0, before)

    def bind(self) -> None:
        """Keep the calling thread on the core from now on. A second call of it does nothing."""
        if self._core is None or sys.platform != "linux" or hasattr(self._bound, "core"):
            return
        self._bound.core = self._core
        try:
            os.sched_setaffinity(0, {self._core})
        except OSError as error:  # the core was taken from this process since
            name = threading.current_thread().name
            _log.warning("callers_core: core %d cannot be had any more, %s stays where it is: %s", self._core, name, error)


class Shared:
    """The client's lock, and what is counted over all its connections."""

    def __init__(self, core: ProcessorCore) -> None:
        self.core = core
        """Where the threads run that wait for answers, and those that send and receive."""
        self.lock = threading.Lock()
        """Guards this, the episodes, the balancer and all connections: so one call may have rows on several."""
        self.changed = threading.Condition(self.lock)
        """Wakes the threads that wait for a connection or pause: one was opened, refused or closed."""
        self.wake_up_queue = WakeUpQueue()
        """The answered callers, in the order in which they go on."""
        self.is_abandoned = False
        """No reference to the client is left: each thread that reads this ends its part. Set without the lock, and never unset."""
        self.weights_seq_no = 0
        """Policy version of the newest answer."""
        self.client_number: int | None = None
        """What the first handshake brought; no other client of the server has it."""
        self.messages_sent = 0
        self.rows_sent = 0
        self.rows_answered = self.rows_stale = 0
        self.connections = 0

    def note_answer(self, rows: int, reply: Reply) -> None:
        """Count what a message of so many rows was answered. Under the lock."""
        self.rows_answered += rows
        self.rows_stale += rows * reply.is_stale
        self.weights_seq_no = reply.weights_seq_no or self.weights_seq_no
