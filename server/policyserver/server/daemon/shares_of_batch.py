"""Lets a batch do without the share of a serving actor that fell silent while it was collected, so that learning goes on at once.

RLlib asks its env runners for an equal share of a batch each, and asks those that answer again and again until the batch is full. Without
this the steps of a silent actor would be waited for twice: until it is silent, and then until the others have made as many in its place.
"""

from __future__ import annotations

import functools
import logging
import threading
from typing import TYPE_CHECKING, Any

from policyserver.server.daemon.training_hooks import samples

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

logger = logging.getLogger(__name__)

_STEPS = "num_env_steps_sampled"  # RLlib's NUM_ENV_STEPS_SAMPLED


class SharesOfBatch:
    """Counts what is collected for a batch, and ends the collecting once all shares are there but those of silent actors.

    For algorithms that collect a batch before they learn from it (PPO); others go on with whatever steps there are.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        """Hook into an algorithm that is built."""
        from ray.rllib.execution import rollout_ops

        self._batch_steps = int(algorithm.config.total_train_batch_size)
        self._lock = threading.Lock()
        self._left_out: set[int] = set()
        self._steps = 0
        self._is_cut_short = False
        group = self._group = algorithm.env_runner_group
        group.foreach_env_runner = self._counted(group.foreach_env_runner)
        algorithm.training_step = self._begun(algorithm.training_step)
        algorithm.learner_group.update = self._completed(algorithm.learner_group.update)
        rollout_ops.logger.addFilter(lambda record: not self._is_cut_short)  # it would say that env runners are slow

    def leave_out(self, index: int) -> None:
        """Do without the share of an actor in the batch that is collected now. From any thread."""
        with self._lock:
            self._left_out.add(index)

    def _begun(self, step: Any) -> Any:
        @functools.wraps(step)
        def hooked(*arguments: Any, **named: Any) -> Any:
            self._steps, self._is_cut_short = 0, False
            return step(*arguments, **named)

        return hooked

    def _counted(self, call: Any) -> Any:
        @functools.wraps(call)
        def hooked(func: Any, *arguments: Any, **named: Any) -> Any:
            if not samples(func):
                return call(func, *arguments, **named)
            if self._is_enough():
                return []  # at which RLlib learns from what it has
            results = call(func, *arguments, **named)
            self._steps += sum(steps_of(result) for result in results)
            return results

        return hooked

    def _completed(self, update: Any) -> Any:
        @functools.wraps(update)
        def hooked(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                self._left_out.clear()
            return update(*arguments, **named)

        return hooked

    def _is_enough(self) -> bool:
        with self._lock:
            left_out = sorted(self._left_out)
        if not left_out or not self._steps:
            return False
        back = set(self._group._worker_manager.healthy_actor_ids())  # sampled from again, in this very batch
        left_out = [index for index in left_out if index not in back]
        if not left_out:
            return False
        actors = int(self._group.num_remote_workers())
        if actors <= len(left_out):  # nothing comes then, and RLlib itself says so
            return False
        if self._steps < self._batch_steps // actors * (actors - len(left_out)):
            return False
        self._is_cut_short = True
        logger.info("a batch of %d steps is learned from, without those of serving actors %s, which are silent", self._steps, left_out)
        return True


def steps_of(result: Any) -> int:
    """Return the steps in what an env runner sampled, which comes with its metrics."""
    return int(result[1].get(_STEPS, 0)) if isinstance(result, tuple) else 0
