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
    handed_off: int = 0
    """The most that an answer said."""
    undelivered: int = 0


class HandOffs:
    """Compares what arrives with what was handed off.

    Where RLlib has several requests under way in one actor (`max_requests_in_flight_per_env_runner` of APPO and IMPALA), a large answer may
    arrive after a small one that was made later. Until it does, its steps count as undelivered.
    """

    def __init__(self) -> None:
        """Begin with nothing handed off."""
        self._lock = threading.Lock()
        self._processes: dict[str, _Arrived] = {}
        self._undelivered = self._told = 0

    @property
    def undelivered(self) -> int:
        """Steps that never arrived, as far as that is known. From any thread."""
        return self._undelivered

    def take(self) -> int:
        """Return the steps of which that became known since the last call; what arrived after it was told is taken off the next ones."""
        with self._lock:
            news = max(self._undelivered - self._told, 0)
            self._told += news
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
            process.handed_off = max(process.handed_off, handed_off)
            more = process.handed_off - process.received - process.undelivered
            process.undelivered += more
            self._undelivered += more
        if more > 0:
            logger.warning(
                "serving actor %d handed off %d steps that did not arrive: it was cut off while they were on their way (steps_undelivered)",
                index,
                more,
            )
        elif more < 0:
            logger.info("serving actor %d: %d steps that were missed (steps_undelivered) have arrived after later ones", index, -more)
