"""Keeps what Ray, RLlib and the link say of a serving actor that is ended on purpose out of the log: to them it is a failure.

What is held back is logged at DEBUG. A death that was not planned, and a successor that can't start, are told as ever.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from policyserver.server.config.algorithm import PLANNED_ENDS

logger = logging.getLogger(__name__)

_MANAGER = "ray.rllib.utils.actor_manager"
_SAMPLING = "ray.rllib.execution.rollout_ops"
_LINK = "policyserver.server.processes.remote_link"
_NO_SAMPLES = "No samples returned from remote workers"
_SERVICE = re.compile(r"actor (\d+) (?:(?:out of|back into) service|on \S+ ended: )")
_CAN_NOT_START = "creation task"
"""In what Ray says of an actor whose constructor fails."""
_RAYLET_BEGINS = "A worker died or was killed"


class ActorProcess(NamedTuple):
    """The process of an actor, as Ray names it."""

    host: str
    port: int
    """Where it listens for Ray."""
    pid: int


class PlannedDeaths(logging.Filter):
    """What is said of the actors that are ended on purpose. From any thread."""

    def __init__(self, group: Any) -> None:
        """Look at the log of an env runner group from now on, until `close()`."""
        super().__init__()
        self._indices: set[int] = set()
        self._about: dict[int, tuple[str, ActorProcess]] = {}
        setattr(group, PLANNED_ENDS, self._indices)
        for name in (_MANAGER, _SAMPLING, _LINK):
            logging.getLogger(name).addFilter(self)
        self._unhook = self._hook_into_ray()

    def close(self) -> None:
        """Look at nothing any more. A second call does nothing."""
        for name in (_MANAGER, _SAMPLING, _LINK):
            logging.getLogger(name).removeFilter(self)
        self._unhook()

    def expect(self, index: int, actor_id: str, process: ActorProcess) -> None:
        """Have the death of an actor's process told as planned until its successor serves, or until it is `given_up`."""
        self._about[index] = actor_id, process
        self._indices.add(index)

    def given_up(self, index: int) -> None:
        """Tell what comes as ever."""
        self._indices.discard(index)

    def filter(self, record: logging.LogRecord) -> bool:
        """Let a record through, one about a planned death as DEBUG."""
        if not self._indices or not self._is_planned(record.getMessage()):
            return True
        record.levelno, record.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
        return logging.getLogger().isEnabledFor(logging.DEBUG)

    def _is_planned(self, text: str) -> bool:
        if _CAN_NOT_START in text:
            return False
        if (service := _SERVICE.search(text)) is not None:
            return int(service[1]) in self._indices
        return text.startswith(_NO_SAMPLES) or any(self._about[index][0] in text for index in tuple(self._indices))

    def _is_planned_of_raylet(self, line: str) -> bool:
        if not line.startswith(_RAYLET_BEGINS):
            return False
        processes = (self._about[index][1] for index in tuple(self._indices))
        return any(f"Worker IP address: {host} Worker port: {port} Worker PID: {pid} " in line for host, port, pid in processes)

    def _hook_into_ray(self) -> Callable[[], None]:
        """Look at what Ray's driver prints by itself; returns what takes that back."""
        import ray._private.worker as worker

        shown = worker.print_to_stdstream

        @functools.wraps(shown)
        def show(data: dict[str, Any], *arguments: Any, **options: Any) -> None:
            lines = [line for line in data.get("lines", ()) if not self._is_planned_of_raylet(line)]
            if len(lines) == len(data.get("lines", ())):
                shown(data, *arguments, **options)
                return
            logger.debug("Ray says of a planned end: %s", data["lines"])
            if lines:
                shown(data | {"lines": lines}, *arguments, **options)

        worker.print_to_stdstream = show

        def unhook() -> None:
            if worker.print_to_stdstream is show:
                worker.print_to_stdstream = shown

        return unhook
