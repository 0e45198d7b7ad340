"""How a serving actor leaves on request, with nothing lost: it starts no episodes, hands off all steps, and ends when asked."""

from __future__ import annotations

import threading
from collections.abc import Callable

from policyserver.server.processes.retirement_state import RetirementOrder, RetirementState
from policyserver.server.runner.serving_loop import ServingLoop

_LEAVE_AFTER_S = 0.2
"""Time for the answer that the actor leaves to reach the daemon."""


class Retirement:
    """The retirement of one serving actor."""

    def __init__(self, index: int, loop: ServingLoop, leave_at_once: Callable[[], None]) -> None:
        self._index = index
        self._loop = loop
        self._leave_at_once = leave_at_once
        self._phase = ""

    def follow(self, order: RetirementOrder) -> RetirementState:
        """Do what is asked of this process, if it is asked, and say how far it is. In the link's thread; a repeated order does nothing."""
        is_meant = (order.number, order.boot_id) == (self._index, self._loop.boot_id)
        if is_meant and order.phase and order.phase != self._phase:
            self._phase = order.phase
            if order.phase == "end":
                self._end_soon()
            else:
                self._loop.retire(leaves=order.phase == "leave", stays=order.phase == "stay")
        return self._loop.call(self._state)

    @property
    def leaves(self) -> bool:
        """Whether it was told to leave, and so records nothing more."""
        return self._phase == "leave"

    @property
    def is_under_way(self) -> bool:
        """Whether it begins no new episodes, for it is to end."""
        return self._phase not in ("", "stay")

    def _end_soon(self) -> None:
        threading.Timer(_LEAVE_AFTER_S, self._leave_at_once).start()

    def _state(self) -> RetirementState:
        core, addresses = self._loop.core, tuple(self._loop.addresses)
        counted = core.snapshot()
        untold = self._loop.untold.count  # an answer that tells of them may be lost, so that it is sent again
        return RetirementState(self._index, self._loop.boot_id, addresses, counted.episodes_open, counted.steps_waiting, untold)
