"""Takes serving actors that are back into the batch that is being collected.

RLlib looks for them before it collects a batch, and PPO collects one by many calls of `sample()`. A client that plays episodes on several
actors waits for the one that is back, because that one waits for the learner. So the others get no steps, and the batch would not be full
for as long as clients wait for the learner (`hand_off.room_wait_s`).
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from policyserver.server.daemon.actor_health import ActorHealth
from policyserver.server.daemon.answering_actors import AnsweringActors
from policyserver.server.daemon.training_hooks import samples

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

logger = logging.getLogger(__name__)


class ReturnedActors:
    """Brings the actors that are out of service and answer back into it before each `sample()`. Of the main thread."""

    def __init__(self, algorithm: Algorithm, health: ActorHealth | None = None) -> None:
        """Hook into an algorithm that is built; `health` knows of a cluster's actors which are silent."""
        self._algorithm, self._health = algorithm, health
        group = self._group = algorithm.env_runner_group
        shared = health.answering if health is not None else None
        self._answering = shared or AnsweringActors(group)
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
        silent = self._health.silent if self._health is not None else ()
        away = [index for index in manager.actor_ids() if not manager.is_actor_healthy(index) and index not in silent]
        if not self._answering.among(away):
            return
        restored = algorithm.restore_env_runners(self._group)
        self._answering.forget(away)
        if restored:
            logger.debug("serving actors %s are sampled from again, in the middle of a batch", restored)
            algorithm._make_on_env_runners_recreated_callbacks(
                config=algorithm.config, env_runner_group=self._group, restored_env_runner_indices=restored
            )
