"""Weights of algorithms that don't push them (IMPALA, APPO): their env runners ask RLlib's EnvRunnerStateServer, a Ray actor.

RLlib's own runner asks for "something newer than mine". After an older checkpoint was restored into a live algorithm that is the wrong
question: the actor would hand the newer weights out again, and what the learner makes of the restored ones would not count as newer for
many updates. Here the state that the actor got last is the one to serve, whatever its version, except for the few that were on their way
when the checkpoint was restored.
"""

from __future__ import annotations

import logging
from typing import Any

import ray
from ray.exceptions import RayError
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

logger = logging.getLogger(__name__)

_GROUP_STOPS = -2
"""Version of the state by which the driver's runner tells the others that all of them are to stop; an empty actor says -1."""
_LATE_STATES = 4
"""States from before a restore that may still arrive after it: those of the updates that were under way."""


class WeightsPull:
    """What one env runner knows of the EnvRunnerStateServer, whose handle RLlib gives it."""

    def __init__(self) -> None:
        self._taken: Any = None  # the reference of the weights that were taken last: a version may come twice, with other weights
        self._restored = self._late_from = 0
        self._late: set[int] = set()
        self._is_away = False

    def newest(self, server: Any) -> dict[str, Any] | None:
        """Return the state to take, its weights fetched; None if it was taken already or has not come yet, or if the actor is silent."""
        try:
            state = ray.get(server.pull.remote())
            if state is None or state[WEIGHTS_SEQ_NO] == _GROUP_STOPS:
                return None
            weights, version = state[COMPONENT_RL_MODULE], int(state[WEIGHTS_SEQ_NO])
            mark = weights.hex() if isinstance(weights, ray.ObjectRef) else version
            if mark == self._taken or self._comes_late(version):
                return None
            if isinstance(weights, ray.ObjectRef):
                weights = ray.get(weights)
        except RayError as error:
            if not self._is_away:
                logger.warning("weights can't be pulled, serving goes on with the present ones: %s", error)
            self._is_away = True
            return None
        self._taken, self._is_away = mark, False
        return {**state, COMPONENT_RL_MODULE: weights}

    def replace(self, server: Any, state: dict[str, Any], version: int) -> None:
        """Have every env runner take this state: the driver's runner calls it when RLlib has set its weights."""
        weights = state[COMPONENT_RL_MODULE]
        reference = weights if isinstance(weights, ray.ObjectRef) else ray.put(weights)
        server.push.remote({**state, WEIGHTS_SEQ_NO: version, COMPONENT_RL_MODULE: reference})

    def stop_group(self, server: Any) -> None:
        """Tell every env runner not to wait for steps any longer, for RLlib's call to stop is queued behind that."""
        server.push.remote({WEIGHTS_SEQ_NO: _GROUP_STOPS})

    def group_stops(self, server: Any) -> bool:
        """Tell whether all env runners are to stop, or the state server is gone."""
        try:
            return bool(ray.get(server.get_version.remote()) == _GROUP_STOPS)
        except RayError:
            return True

    def note_restored(self, before: int, version: int) -> None:
        """Note that RLlib set weights of a version, in place of those of the version `before`."""
        self._restored, self._late_from = version, before if version < before else 0
        self._late.clear()

    def _comes_late(self, version: int) -> bool:
        """Tell a state from before a restore from those after it, which count on from the restored version."""
        if self._late_from and version >= self._late_from:
            self._late.add(version)
            if len(self._late) <= _LATE_STATES:
                return True
        if version > self._restored:
            self._late_from = 0
        return version < self._restored
