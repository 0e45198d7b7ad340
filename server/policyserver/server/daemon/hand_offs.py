"""Counts the steps that serving actors handed off and the learner never got. Each answer of an actor's says how many those are in all."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from policyserver.server.processes.hand_off import HAND_OFF

logger = logging.getLogger(__name__)

_STEPS = "num_env_steps_sampled"
"""RLlib's metric of an answer: the steps in it."""
_KEPT = 1000
"""Most serving processes that are remembered; a daemon has a handful, and some more that died."""


@dataclass(slots=True)
class _Arrived:
    received: int = 0
    undelivered: int = 0


class HandOffs:
    """Compares what arrives with what was handed off. Answers of one process come in the order in which it made them."""

    def __init__(self) -> None:
        """Begin with nothing handed off."""
        self._lock = threading.Lock()
        self._processes: dict[str, _Arrived] = {}
        self._undelivered = self._taken = 0

    @property
    def undelivered(self) -> int:
        """Steps that never arrived, as far as that is known. From any thread."""
        return self._undelivered

    def take(self) -> int:
        """Return the steps of which that became known since the last call."""
        with self._lock:
            news, self._taken = self._undelivered - self._taken, self._undelivered
            return news

    def look(self, answers: Iterable[tuple[int, Any]]) -> None:
        """Look at what actors answered, by their indices, and take out what is meant for this; answers to other calls are passed over."""
        for index, answer in answers:
            metrics = answer[-1] if isinstance(answer, tuple) and answer else answer
            if isinstance(metrics, dict) and HAND_OFF in metrics:
                boot_id, handed_off = metrics.pop(HAND_OFF)
                self._compare(index, boot_id, handed_off, int(metrics.get(_STEPS, 0)))

    def _compare(self, index: int, boot_id: str, handed_off: int, steps: int) -> None:
        with self._lock:
            process = self._processes[boot_id] = self._processes.pop(boot_id, _Arrived())  # last, for it lives
            while len(self._processes) > _KEPT:
                del self._processes[next(iter(self._processes))]
            process.received += steps
            missing = handed_off - process.received - process.undelivered
            if missing <= 0:
                return
            process.undelivered += missing
            self._undelivered += missing
        logger.warning(
            "serving actor %d handed off %d steps that never arrived: it was cut off while they were on their way (steps_undelivered)",
            index,
            missing,
        )
