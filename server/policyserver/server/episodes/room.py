"""Whether there is room for more steps: questions wait for it, so that no answer ever does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from policyserver.server.episodes.demand import Demand

logger = logging.getLogger(__name__)


class Room:
    """Open while the learner wants steps, closed once those are recorded. Owned by the loop thread.

    It opens for `Demand.fragment_steps` when new weights are served and whenever the learner asks, and closes when as many steps are ready.
    No client takes a part of it in advance, so a client that sleeps leaves nothing unused: a step counts when it is recorded. Between a
    hand-off and the next opening there is room for `Demand.batches_ahead` fragments. Clients that never wait have no part in it, or a
    client in real time would leave the others none.

    If the learner does not ask for `wait_s` while questions wait, they wait no longer until it asks again.
    """

    def __init__(self, demand: Demand, ready: Callable[[], int], wait_s: float) -> None:
        """Begin open. `ready` returns how many steps could be handed off now; questions wait for `wait_s` at most."""
        self.demand = demand
        """What the learner wants; another one holds from the next opening on."""
        self._ready = ready
        self._wait_s = wait_s
        self._limit_steps = self._steps_at_once
        self._unasked_steps = 0
        self._is_lifted = False
        self._is_paused = False
        self._is_forced = False
        self._timer: asyncio.TimerHandle | None = None
        self._told: dict[Callable[[], None], None] = {}

    @property
    def is_open(self) -> bool:
        """Whether a question may be answered now."""
        return self.is_open_after(0)

    def is_open_after(self, steps: int) -> bool:
        """Tell whether there is room left once so many more steps are recorded."""
        if self._is_lifted or self._is_forced or self._is_paused:
            return True
        if self.demand.whole_episodes or not self.demand.on_policy:
            steps = 0  # they may not be ready yet: episodes that go on, steps that are carried on
        ready = self._ready()
        self._unasked_steps = min(self._unasked_steps, ready)  # what was handed off or dropped is gone
        return ready - self._unasked_steps + steps < self._limit_steps

    def note_unasked(self, steps: int) -> None:
        """Note steps that were recorded whether there was room or not."""
        self._unasked_steps += steps

    def open(self, steps: int | None = None, *, more: bool = False) -> None:
        """Open for a fragment, or for as many steps as the learner asks for; for no others if these are `more` of the same batch."""
        self._is_forced = False
        self._limit_steps = max(self._steps_ahead if more else self._steps_at_once, steps or 0)
        self.tell()

    def end_at(self, steps: int) -> None:
        """Take no more than so many steps, though there was room for others."""
        self._limit_steps = min(self._limit_steps, steps)

    def close(self, steps: int) -> None:
        """Close at a hand-off of so many steps: the learner has what it wanted, and clients may play so far ahead as is allowed.

        Where clients in real time made a part of it, the others still have what is left of their room.
        """
        self._is_forced = False
        self._limit_steps, limit_steps = self._steps_ahead, self._limit_steps
        if self._unasked_steps and (ready := self._ready()):
            unasked_steps = round(min(self._unasked_steps, ready) * min(steps / ready, 1.0))  # of those handed off, so far as one can tell
            self._unasked_steps -= unasked_steps
            self._limit_steps = max(self._limit_steps, limit_steps - (steps - unasked_steps))

    def pause(self, paused: bool) -> None:
        """Let everything pass while learning is paused, for then no step fills the room."""
        self._is_paused = paused
        self.tell()

    def lift(self) -> None:
        """Let everything pass from now on: the server drains."""
        self._is_lifted = True
        self.tell()

    def when_open(self, tell: Callable[[], None]) -> None:
        """Call a function once, as soon as there is room."""
        if self.is_open:
            tell()
            return
        self._told[tell] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._wait_s, self._force)

    def forget(self, tell: Callable[[], None]) -> None:
        """Take back what `when_open` was told."""
        self._told.pop(tell, None)

    def tell(self) -> None:
        """Call the functions that wait for room, if there is room."""
        if not self.is_open:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        told, self._told = self._told, {}
        for tell in told:
            tell()

    @property
    def _steps_ahead(self) -> int:
        return int(self.demand.batches_ahead * self.demand.fragment_steps)

    @property
    def _steps_at_once(self) -> int:
        return int(max(1.0, self.demand.batches_ahead) * self.demand.fragment_steps)

    def _force(self) -> None:
        logger.warning(
            "the learner has asked for no steps for %g s (hand_off.room_wait_s): clients wait for it no longer, and the oldest steps are "
            "dropped where they send too many",
            self._wait_s,
        )
        self._timer = None
        self._is_forced = True
        self.tell()
