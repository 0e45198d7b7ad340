"""Collects a batch from several serving actors as from one: it is full once they have its steps together, however few one of them has.

RLlib asks its env runners for an equal share of a batch each, and waits for all of them. A serving actor that has given its share lets
its clients wait for the learner. A client that plays episodes on several actors then gives the others nothing either, so those that have
fewer episodes would never have their shares, and each `sample()` would last as long as it may. So an actor that has given its share is
asked for more meanwhile, as much as belongs to what the others have still to make, and once all together have the batch's steps, each that
is still asked gives what it has. Likewise an actor without clients is not waited for.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from policyserver.server.daemon.actor_health import ActorHealth
from policyserver.server.daemon.safe_point import SafePoint
from policyserver.server.daemon.shares_of_batch import steps_of
from policyserver.server.daemon.training_hooks import samples
from policyserver.server.processes.link import FULL, STEPS, Link
from policyserver.server.runner.learner_demand import learner_demand

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

_ANSWER_S = 0.5
"""How long serving actors may take to say how many steps they have."""
_SLICE_S = 0.1
"""How long Ray is waited for between two looks at who is silent: its wait can't be woken."""


def collect_together(algorithm: Algorithm, link: Link, safe_point: SafePoint, health: ActorHealth | None = None) -> None:
    """Let an algorithm collect so, if its batches are to be of one policy version; others learn from what comes, and clients play ahead."""
    if algorithm.config.num_env_runners and learner_demand(algorithm.config, 1, None).on_policy:
        BatchCollection(algorithm, link, safe_point, None if health is None else lambda: health.silent)


class BatchCollection:
    """Stands between RLlib's collecting of a batch and its actors. Of the main thread."""

    def __init__(
        self, algorithm: Algorithm, link: Link, safe_point: SafePoint, silent: Callable[[], Collection[int]] | None = None
    ) -> None:
        """Hook into an algorithm that is built and collects whole batches; `silent` says which actors are not waited for."""
        self._batch_steps = int(algorithm.config.total_train_batch_size)
        self._link = link
        self._safe_point = safe_point
        self._silent = silent
        self._collected = 0
        """Steps of the batch so far."""
        self._call_no = 0
        """Number of the newest call of `sample()`."""
        self._is_asking = False
        group = algorithm.env_runner_group
        self._manager = group._worker_manager
        self._fetch = self._manager._fetch_result
        self._manager._fetch_result = self._fetch_batch
        group.foreach_env_runner = self._numbered(group.foreach_env_runner)
        algorithm.training_step = self._begun(algorithm.training_step)

    def _begun(self, step: Any) -> Any:
        @functools.wraps(step)
        def hooked(*arguments: Any, **named: Any) -> Any:
            self._collected = 0
            return step(*arguments, **named)

        return hooked

    def _numbered(self, call: Any) -> Any:
        @functools.wraps(call)
        def hooked(func: Any, *arguments: Any, **named: Any) -> Any:
            if not samples(func):
                return call(func, *arguments, **named)
            self._call_no += 1
            self._is_asking = self._manager.num_healthy_actors() > 1
            share = functools.partial(sample_share, call_no=self._call_no, steps=self._rest) if self._is_asking else func
            try:
                results = call(share, *arguments, **named)
            finally:
                self._is_asking = False
            self._collected += sum(map(steps_of, results))
            return results

        return hooked

    @property
    def _rest(self) -> int | None:
        """What each actor is asked for once there is a part of the batch; None, which is RLlib's share, before."""
        missing = self._batch_steps - self._collected
        return math.ceil(missing / max(self._manager.num_healthy_actors(), 1)) if self._collected and missing > 0 else None

    def _fetch_batch(
        self, *, remote_actor_ids: list[int], remote_calls: list[Any], tags: list[Any], timeout_seconds: float | None = None, **others: Any
    ) -> Any:
        if self._is_asking and remote_calls and timeout_seconds != 0.0:
            until_s = None if timeout_seconds is None else time.monotonic() + timeout_seconds
            remote_actor_ids, remote_calls = self._collect(remote_actor_ids, remote_calls, until_s)
            tags = [tags[0]] * len(remote_calls)
            timeout_seconds = None if until_s is None else max(until_s - time.monotonic(), _SLICE_S)
        calls = {"remote_actor_ids": remote_actor_ids, "remote_calls": remote_calls, "tags": tags}
        return self._fetch(**calls, timeout_seconds=timeout_seconds, **others)

    def _collect(self, indices: list[int], calls: list[Any], until_s: float | None) -> tuple[list[int], list[Any]]:
        """Wait until no answer is worth another question; returns all calls that were made, and whom."""
        asked = dict(zip(calls, indices, strict=True))
        pending = set(calls)
        given = dict.fromkeys(indices, 0)
        while answered := self._wait(pending, asked, until_s):
            pending -= answered
            for call in answered:
                steps = _steps_of(call)
                given[asked[call]] += steps
                if not steps:  # its time was over, or it was interrupted
                    pending.clear()
            if not pending or self._safe_point.is_awaited:
                break
            waiting = {asked[call] for call in pending}
            made = self._made(given, waiting)
            missing = self._batch_steps - self._collected - sum(made.values())
            if missing <= 0:
                self._link.order(FULL, self._call_no)
                break
            for index in given.keys() - waiting:
                more = functools.partial(sample_share, call_no=self._call_no, steps=math.ceil(missing * made[index] / sum(made.values())))
                for call in self._manager._call_actors(more, remote_actor_ids=[index]):
                    asked[call] = index
                    pending.add(call)
        return list(asked.values()), list(asked)

    def _made(self, given: dict[int, int], waiting: set[int]) -> dict[int, int]:
        """Return how many steps each actor has made for this call; of those that `waiting` asks, what they have is known to them alone."""
        made = dict(given)
        for index, handed_off, ready in self._link.ask(_ANSWER_S, kind=STEPS, content=self._call_no):
            if index in waiting:
                made[index] = handed_off + ready
        return made

    def _wait(self, pending: set[Any], asked: dict[Any, int], until_s: float | None) -> set[Any]:
        """Wait for an answer at least; returns the answered calls, none if the time is over or all that are missing are silent."""
        import ray

        while True:
            left_s = None if until_s is None else max(until_s - time.monotonic(), 0.0)
            wait_s = left_s if self._silent is None else min(_SLICE_S, left_s if left_s is not None else _SLICE_S)
            if ray.wait(list(pending), num_returns=1, timeout=wait_s)[0]:
                return set(ray.wait(list(pending), num_returns=len(pending), timeout=0.0)[0])
            if left_s is not None and left_s <= _SLICE_S:
                return set()
            if self._silent is None or {asked[call] for call in pending} <= set(self._silent()):
                return set()


def sample_share(env_runner: Any, call_no: int, steps: int | None = None) -> tuple[Any, Any]:
    """Sample in an env runner as RLlib does: its share of a batch, or so many steps."""
    return env_runner.sample(num_timesteps=steps, call_no=call_no), env_runner.get_metrics()


def _steps_of(call: Any) -> int:
    """Return the steps that an answer brings; none if the actor has died, which RLlib is told when it fetches it."""
    import ray

    try:
        return steps_of(ray.get(call))
    except ray.exceptions.RayError:
        return 0
