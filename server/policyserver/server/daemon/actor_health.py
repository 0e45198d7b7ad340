"""Leaves serving actors that are silent out of sampling, at once: RLlib notices them after a minute, and waits for them until then."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

logger = logging.getLogger(__name__)


class ActorHealth:
    """What the link says of the serving actors, told to RLlib's manager of them. From any thread."""

    def __init__(self) -> None:
        """Begin without an algorithm; `watch` brings it."""
        self._lock = threading.Lock()
        self._silent: set[int] = set()
        self._manager: Any = None

    def watch(self, algorithm: Algorithm) -> None:
        """Tell this algorithm's manager from now on."""
        with self._lock:
            self._manager = algorithm.env_runner_group._worker_manager
            for index in self._silent:
                self._set(index, is_healthy=False)

    def note(self, index: int, is_silent: bool) -> None:
        """Take note of an actor that is silent or is heard of again.

        One that is heard of again is not called healthy here: RLlib's probe finds it so before the next iteration, and brings it weights.
        """
        with self._lock:
            (self._silent.add if is_silent else self._silent.discard)(index)
            if is_silent:
                self._set(index, is_healthy=False)

    def _set(self, index: int, *, is_healthy: bool) -> None:
        if self._manager is not None and index in self._manager.actor_ids():
            self._manager.set_actor_state(index, is_healthy)
