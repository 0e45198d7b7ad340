"""Where the main thread does what other threads ask of it: between two calls of `sample()`, and between two iterations."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from policyserver.server.control.admin_errors import draining_error

T = TypeVar("T")


class SafePoint:
    """Tasks for the thread that trains, which alone may use RLlib's algorithm.

    No update runs there, so weights, optimizer and filters belong together.
    """

    def __init__(self, interrupt: Callable[[], None]) -> None:
        """Begin without a task. `interrupt` makes a `sample()` that is under way return."""
        self._interrupt = interrupt
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # whose `put` a signal handler may call
        self._is_closed = False

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
        """Do what was asked. In the main thread."""
        self._run_waiting()

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
