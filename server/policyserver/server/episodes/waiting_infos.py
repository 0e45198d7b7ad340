"""Infos of steps that wait for the learner, within a bound in bytes."""

from __future__ import annotations

import logging
import sys
from typing import Any

logger = logging.getLogger(__name__)


class WaitingInfo(dict[str, Any]):
    """An info that is counted for as long as a live episode, an open page or the sample queue holds it."""

    __slots__ = ("_infos", "_size")

    def __init__(self, info: dict[str, Any], infos: WaitingInfos, size: int) -> None:
        super().__init__(info)
        self._infos = infos
        self._size = size
        infos.held_bytes += size

    def __del__(self) -> None:
        self._infos.held_bytes -= self._size

    def __copy__(self) -> WaitingInfo:
        return WaitingInfo(self, self._infos, self._size)

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)  # what leaves, by pickle or as a deep copy, waits no longer


class WaitingInfos:
    """Counts the infos that wait. What does not fit is left out, and counted: the step is recorded without it."""

    def __init__(self, most_bytes: int) -> None:
        """Hold at most so many bytes."""
        self._most_bytes = most_bytes
        self.held_bytes = 0
        self.dropped = 0

    def keep(self, info: dict[str, Any]) -> dict[str, Any] | None:
        """Return the info, counted; None if there is no room for it."""
        if isinstance(info, WaitingInfo):
            return info
        size = _size_bytes(info)
        if self.held_bytes + size > self._most_bytes:
            if not self.dropped:
                text = (
                    "infos of steps that wait for the learner take %d bytes (episodes.max_waiting_info_bytes); steps are recorded without"
                )
                logger.warning(text, self.held_bytes)
            self.dropped += 1
            return None
        return WaitingInfo(info, self, size)


def _size_bytes(info: dict[str, Any]) -> int:
    """Return about how many bytes an info takes, with all that it contains."""
    size, left = 0, [info]
    while left:
        value: Any = left.pop()
        size += sys.getsizeof(value)
        if isinstance(value, dict):
            left += value.keys()
            left += value.values()
        elif isinstance(value, list | tuple | set):
            left += value
    return size
