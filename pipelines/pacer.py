"""Keeps the pipeline in step with the learner.

Simulated prices have no clock: the market can drip bars faster than any learner takes the steps, and a policy that is asked for actions
it can't learn from in time is asked for nothing. So the market pauses while too many steps wait at the server. It is the market that
waits, never an action: live prices need no pacer.
"""

from __future__ import annotations

import threading

from pipelines.run_state import RunState


class Pacer:
    """Lets steps pass while fewer than `limit` wait for the learner. Thread-safe."""

    def __init__(self, limit: int | None, run: RunState) -> None:
        """Begin with nothing waiting.

        Args:
            limit: Steps that may wait at the server; None lets everything pass.
            run: Its end lets everything pass.
        """
        self._limit = limit
        self._run = run
        self._changed = threading.Condition()  # guards what follows
        self._waiting = 0
        self._admitted_since = 0

    def update(self, waiting: int) -> None:
        """Say how many steps wait at the server now. Called again and again, for it also lets the end of the run be seen."""
        with self._changed:
            self._waiting = waiting
            self._admitted_since = 0
            self._changed.notify_all()

    def admit(self, count: int) -> None:
        """Wait until `count` more steps may pass; those passed since the last update count as waiting."""
        if self._limit is None:
            return
        limit = self._limit
        with self._changed:
            self._changed.wait_for(lambda: self._waiting + self._admitted_since < limit or self._run.stopping.is_set())
            self._admitted_since += count
