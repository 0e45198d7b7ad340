"""Ends serving actors on purpose, so that RLlib starts them again."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from policyserver.server.daemon.planned_deaths import ActorProcess, PlannedDeaths
from policyserver.server.daemon.safe_point import SafePoint
from policyserver.server.daemon.serving_actors import ServingActors

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

logger = logging.getLogger(__name__)


class ActorEnds:
    """The ends of the serving actors of an algorithm, one after another. From any thread."""

    def __init__(self, algorithm: Algorithm, actors: ServingActors, safe_point: SafePoint) -> None:
        """Take the algorithm whose actors they are; nothing ends yet."""
        self._algorithm = algorithm
        self._actors = actors
        self._safe_point = safe_point
        self._deaths = PlannedDeaths(algorithm.env_runner_group)
        self._leaving: dict[int, ActorProcess | None] = {}

    def close(self) -> None:
        """Let Ray and RLlib say what they like again. A second call does nothing."""
        self._deaths.close()

    def begin(self, index: int) -> None:
        """Note which process of an actor is to go."""
        self._leaving[index] = _process_of(self._handle(index))

    def end(self, index: int, boot_id: str) -> Future[bool]:
        """End this process of an actor at the safe point, if it has handed off everything; tells whether it ends."""

        def end() -> bool:
            if (process := self._leaving.get(index)) is not None:
                self._deaths.expect(index, _id_of(self._handle(index)), process)
            ends = self._actors.end_retired(index, boot_id)
            if not ends:
                self._deaths.given_up(index)
            return ends

        return self._safe_point.ask(end)

    def kill(self, index: int) -> bool:
        """Kill the process that was to go, if it is still there, and have Ray start the actor again; returns whether it was there."""
        import ray

        handle = self._handle(index)
        if (process := self._leaving.get(index)) is None or _process_of(handle) != process:
            return False
        ray.kill(handle, no_restart=False)
        return True

    def given_up(self, index: int) -> None:
        """Take note that the replacement of an actor was left: what Ray says of it from now on is told as ever."""
        self._deaths.given_up(index)

    def _handle(self, index: int) -> Any:
        return self._algorithm.env_runner_group._worker_manager.actors().get(index)


class ForGood:
    """Ends that no successor follows; see `Ends` in `rolling_restart`."""

    def __init__(self, actors: ServingActors) -> None:
        """Take the actors, of which the last one can go."""
        self._actors = actors

    def begin(self, index: int) -> None:
        """Have nothing to note."""

    def end(self, index: int, boot_id: str) -> Future[bool]:
        """End this process of an actor at the safe point, if it has handed off everything; tells whether it has ended."""
        return self._actors.remove_retired(index, boot_id)

    def kill(self, index: int) -> bool:
        """Kill nothing: what hangs is killed by its removal."""
        return False

    def given_up(self, index: int) -> None:
        """Have nothing to note."""


def _id_of(handle: Any) -> str:
    return str(handle._actor_id.hex())


def _process_of(handle: Any) -> ActorProcess | None:
    """Return the process of an actor; None if it has none now."""
    from ray._private.state import actors

    about: dict[str, Any] = actors(_id_of(handle)) if handle is not None else {}
    if about.get("State") != "ALIVE":
        return None
    return ActorProcess(about["Address"]["IPAddress"], about["Address"]["Port"], about["Pid"])
