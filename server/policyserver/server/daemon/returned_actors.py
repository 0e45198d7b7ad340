"""Takes serving actors that are back into the batch that is being collected.

RLlib looks for them before it collects a batch, and PPO collects one by many calls of `sample()`. A client that plays episodes on several
actors waits for the one that is back, because that one waits for the learner. So the others get no steps, and the batch would not be full
for as long as clients wait for the learner (`hand_off.room_wait_s`).
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from policyserver.server.daemon.training_hooks import samples

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

logger = logging.getLogger(__name__)


class ReturnedActors:
    """Asks the actors that are out of service whether they answer, without a wait, before each `sample()`. Of the main thread."""

    def __init__(self, algorithm: Algorithm) -> None:
        """Hook into an algorithm that is built."""
        self._algorithm = algorithm
        self._asked: dict[int, Any] = {}
        """By actor, the question to one that is out of service."""
        group = self._group = algorithm.env_runner_group
        group.foreach_env_runner = self._hooked(group.foreach_env_runner)

    def _hooked(self, call: Any) -> Any:
        @functools.wraps(call)
        def hooked(func: Any, *arguments: Any, **named: Any) -> Any:
            if samples(func):
                self._take_up()
            return call(func, *arguments, **named)

        return hooked

    def _take_up(self) -> None:
        manager, algorithm = self._group._worker_manager, self._algorithm
        away = [index for index in manager.actor_ids() if not manager.is_actor_healthy(index)]
        self._asked = {index: self._asked.get(index) or manager._actors[index].ping.remote() for index in away}
        if not any(self._answers(index) for index in away):
            return
        restored = algorithm.restore_env_runners(self._group)
        if restored:
            logger.debug("serving actors %s are sampled from again, in the middle of a batch", restored)
            algorithm._make_on_env_runners_recreated_callbacks(
                config=algorithm.config, env_runner_group=self._group, restored_env_runner_indices=restored
            )

    def _answers(self, index: int) -> bool:
        """Tell whether an actor has answered; one that could not is asked anew by the next call."""
        import ray

        question = self._asked[index]
        if not ray.wait([question], timeout=0.0)[0]:
            return False
        try:
            ray.get(question)
        except Exception:  # whatever Ray raises of an actor that is not there
            del self._asked[index]
            return False
        return True
