"""Where the main thread does what other threads ask of it: between two calls of `sample()`, and between two iterations."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from policyserver.server.control.admin_errors import draining_error

T = TypeVar("T")


class SafePoint:
    """Tasks for the thread that trains, which alone may use RLlib's algorithm.

    No update runs there, so weights, optimizer and filters belong together.
    """

    def __init__(self, interrupt: Callable[[], None], stopping: threading.Event) -> None:
        """Begin without a task. `interrupt` makes a `sample()` that is under way return; no pause outlasts `stopping`."""
        self._interrupt = interrupt
        self._stopping = stopping
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # whose `put` a signal handler may call
        self._is_closed = False
        self._here_s = 0.0
        self.passes = 0
        """How many times the main thread came here; from any thread."""
        self.is_paused = False
        """Whether the main thread stays here until it is told to go on; from any thread."""

    def pause(self, paused: bool) -> None:
        """Have the main thread stay here, or go on. From any thread."""
        self.is_paused = paused
        self.wake()

    def wake(self) -> None:
        """Have the main thread look whether it may go on. From any thread, and from a signal handler."""
        self._tasks.put(lambda: None)

    @property
    def is_awaited(self) -> bool:
        """Whether the main thread has something to do here, or the server stops."""
        return self._stopping.is_set() or self.is_paused or not self._tasks.empty()

    def clock_s(self) -> float:
        """Return `time.monotonic` less the time that the main thread spent here: what it measures elsewhere is its own."""
        return time.monotonic() - self._here_s

    def ask(self, task: Callable[[], T]) -> Future[T]:
        """Have the main thread do something once it is here. From any thread."""
        answer: Future[T] = Future()

        def run() -> None:
            if self._is_closed:
                answer.set_exception(draining_error())
                return
            try:
                answer.set_result(task())
            except Exception as error:
                answer.set_exception(error)
            except BaseException:  # the draining's end
                answer.set_exception(draining_error())
                raise

        self._tasks.put(run)
        if self._is_closed:
            self._run_waiting()
        else:
            self._interrupt()
        return answer

    def pass_by(self) -> None:
        """Do what was asked, and stay for as long as learning is paused. In the main thread."""
        begun = time.monotonic()
        self.passes += 1
        self._run_waiting()
        while self.is_paused and not self._stopping.is_set():
            self._tasks.get()()
        self._here_s += time.monotonic() - begun

    def close(self) -> None:
        """Refuse what was asked, and what is asked from now on: the server ends."""
        self._is_closed = True
        self._run_waiting()

    def _run_waiting(self) -> None:
        while True:
            try:
                task: Any = self._tasks.get_nowait()
            except queue.Empty:
                return
            task()
