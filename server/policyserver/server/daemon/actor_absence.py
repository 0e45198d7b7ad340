"""Measures for how long there has been no serving actor, whatever the length of the iterations: with few clients one may last for hours."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from policyserver.server.daemon.training_hooks import samples

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

LONGEST_S = 300.0
"""How long all may be absent before the daemon gives up. A restart takes about five seconds of processor time, which at ten times the load
that the processors can bear is more than a minute."""


class ActorAbsence:
    """Looks after each `sample()` and whenever it is told to. Of the main thread."""

    def __init__(self, algorithm: Algorithm, clock_s: Callable[[], float]) -> None:
        """Hook into an algorithm that is built; `clock_s` stands still while no actor is looked for."""
        self._algorithm = algorithm
        self._clock_s = clock_s
        self._since_s: float | None = None
        """When it was first seen that all are absent; None while one is there."""
        group = algorithm.env_runner_group
        group.foreach_env_runner = self._looking(group.foreach_env_runner)
        group.foreach_env_runner_async_fetch_ready = self._looking(group.foreach_env_runner_async_fetch_ready)

    def look(self) -> str:
        """Look whether there is an actor now; return why the daemon is to give up, or nothing."""
        if self._algorithm.env_runner_group.num_healthy_remote_workers() or not self._algorithm.config.num_env_runners:
            self._since_s = None
            return ""
        now_s = self._clock_s()
        self._since_s = now_s if self._since_s is None else self._since_s
        if now_s - self._since_s <= LONGEST_S:
            return ""
        return f"no serving actor came back within {LONGEST_S:.0f} s; its error is in the log above"

    def _looking(self, call: Any) -> Any:
        @functools.wraps(call)
        def hooked(func: Any, *arguments: Any, **named: Any) -> Any:
            results = call(func, *arguments, **named)
            if samples(func):
                self.look()
            return results

        return hooked
