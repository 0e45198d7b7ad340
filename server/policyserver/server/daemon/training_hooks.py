"""Hooks into RLlib's training loop at the two places for which it has no callback."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm


class DrainingError(Exception):
    """The iteration was left before its learner had a batch, because the server is stopping."""


class IterationLeftError(Exception):
    """The iteration was left, because its steps or its update are of a policy that was rolled back."""


class TrainingHooks:
    """Makes `train()` leave between two calls of `sample()` once the server stops, and measures the learner's updates and minibatches.

    Without the first, `train()` would wait endlessly for a full batch when no client is there. An update is never interrupted.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        stopping: threading.Event,
        pass_by: Callable[[], None] = lambda: None,
        is_rolled_back: Callable[[], bool] = lambda: False,
        before_update: Callable[[], object] = lambda: None,
        after_update: Callable[[], None] = lambda: None,
    ) -> None:
        """Hook into an algorithm.

        `stopping` is set when the server stops, `pass_by` is called before each `sample()`, and once `is_rolled_back` returns true the
        iteration is left: before the next `sample()`, before an update, or after one, before its weights are pushed. `before_update` and
        `after_update` are called before and after each update.
        """
        from policyserver.server.daemon.sample_shares import SampleShares  # with torch, which a start that is refused does without

        self._stopping = stopping
        self._pass_by = pass_by
        self._is_rolled_back = is_rolled_back
        self._before_update = before_update
        self._after_update = after_update
        self._learn_seconds = 0.0
        self.is_updating = False
        """Whether an update runs; from any thread."""
        group = algorithm.env_runner_group
        group.foreach_env_runner = self._leave_when_stopping(group.foreach_env_runner)
        group.foreach_env_runner_async_fetch_ready = self._leave_when_stopping(group.foreach_env_runner_async_fetch_ready)
        algorithm.learner_group.update = self._measured(algorithm.learner_group.update)
        self.sample_shares = SampleShares(algorithm.learner_group)
        """The effective sample size of the updates."""

    def take_learn_seconds(self) -> float:
        """Return the length of the updates since the last call, seconds."""
        seconds, self._learn_seconds = self._learn_seconds, 0.0
        return seconds

    def _leave_when_stopping(self, call: Any) -> Any:
        @functools.wraps(call)
        def hooked(func: Any, *args: Any, **kwargs: Any) -> Any:
            if samples(func):
                self._pass_by()
                if self._stopping.is_set():
                    raise DrainingError("the server is stopping")
                self._leave_if_rolled_back()
            return call(func, *args, **kwargs)

        return hooked

    def _leave_if_rolled_back(self) -> None:
        if self._is_rolled_back():
            raise IterationLeftError("the policy was rolled back")

    def _measured(self, update: Any) -> Any:
        @functools.wraps(update)
        def hooked(*args: Any, **kwargs: Any) -> Any:
            self._leave_if_rolled_back()
            self._before_update()
            begun = time.monotonic()
            self.is_updating = True
            try:
                results = update(*args, **kwargs)
            finally:
                self.is_updating = False
                self._learn_seconds += time.monotonic() - begun
            self._after_update()
            self._leave_if_rolled_back()
            return results

        return hooked


_SAMPLING = ("ray.rllib.execution.rollout_ops", "policyserver.server.daemon.batch_collection")


def samples(func: Any) -> bool:
    """Tell sampling calls, RLlib's and `BatchCollection`'s, from those that synchronize weights and states."""
    if isinstance(func, str):
        return func.startswith("sample")
    called = func.func if isinstance(func, functools.partial) else func
    return getattr(called, "__module__", "") in _SAMPLING
