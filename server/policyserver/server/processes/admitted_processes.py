"""Which process of each serving actor the daemon lets in: one that has a successor, or is about to end, is sent away when it comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable

_MOST_GIVEN_UP = 1000


class AdmittedProcesses:
    """Knows the newest process of each actor, and those that were given up. From any thread."""

    def __init__(self, is_given_up: Callable[[str], bool]) -> None:
        """Begin without a process; `is_given_up` tells of a node, by Ray's id, whether Ray has given it up and so ends its processes."""
        self._is_given_up = is_given_up
        self._lock = threading.Lock()
        self._newest: dict[int, str] = {}
        """The process of each actor that came last, by its boot id."""
        self._given_up: dict[str, None] = {}
        """Processes that have a successor or were to end for good, by boot id: they were cut off then, and may come back."""

    def admit(self, index: int, boot_id: str, node_id: str, *, is_back: bool) -> bool:
        """Take note of the process that an actor is now; False if it is to be sent away.

        Args:
            index: RLlib's index of the actor.
            boot_id: Of the process.
            node_id: Ray's id of its node, or empty.
            is_back: Whether the actor was silent before, so that Ray may have given the node up meanwhile.
        """
        with self._lock:
            if boot_id in self._given_up:
                return False
        if is_back and node_id and self._is_given_up(node_id):
            with self._lock:
                self._give_up(boot_id)
            return False
        with self._lock:
            before = self._newest.get(index, "")
            self._newest[index] = boot_id
            if before != boot_id:
                self._give_up(before)
            return True

    def release(self, index: int) -> None:
        """Give up the process of an actor that ends for good."""
        with self._lock:
            self._give_up(self._newest.pop(index, ""))

    def _give_up(self, boot_id: str) -> None:
        if boot_id:
            self._given_up[boot_id] = None
        while len(self._given_up) > _MOST_GIVEN_UP:
            del self._given_up[next(iter(self._given_up))]
