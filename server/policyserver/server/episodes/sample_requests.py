"""How recorded steps reach the learner: it asks for them, and gets them once there are enough, copied out in small turns of the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policyserver.server.episodes.demand import Demand
from policyserver.server.episodes.room import Room
from policyserver.server.episodes.segments import SegmentBlock
from policyserver.server.episodes.trajectories import Trajectories
from policyserver.server.episodes.withheld import WithheldQuestions
from policyserver.server.policies.policy import Policy

# What one turn of the loop copies out at most, so that actions never wait longer than that.
_SEGMENTS_PER_TURN = 128
_BYTES_PER_TURN = 8 * 2**20
# The last steps of a batch are waited for until no row has come for a while, but not longer than a second.
_QUIET_S = 0.05
_LAST_STEPS_WAIT_S = 1.0

Blocks = list[SegmentBlock]


@dataclass(slots=True)
class _Request:
    want_steps: int
    timer: asyncio.TimerHandle
    done: Callable[[Blocks], None]
    or_fewer: bool
    call_no: int
    enough_s: float | None = None
    """When there were enough steps, but some that had been asked for were still to come."""


class SampleRequests:
    """Answer the learner's requests for steps. Owned by the loop thread.

    On-policy, one request gets everything that is recorded, open pages included, once there are as many steps as it wants and those
    that clients are making have come: one batch, one policy version, each open episode cut once. Else it gets as many steps as it wants;
    surplus steps of a segment count for the next request.
    """

    def __init__(
        self,
        policy: Policy,
        trajectories: Trajectories,
        room: Room,
        withheld: WithheldQuestions,
        demand: Demand,
        max_segment_age_s: float,
        most_steps: int | None,
    ) -> None:
        """Begin without a request; `most_steps` is what there may be at once, if that is bounded: no request waits for more."""
        self._policy = policy
        self._trajectories = trajectories
        self._room = room
        self._withheld = withheld
        self.demand = demand
        self._max_segment_age_s = max_segment_age_s
        self._most_steps = most_steps
        self._segments_per_turn = max(1, min(_SEGMENTS_PER_TURN, _BYTES_PER_TURN // trajectories.page_bytes))
        self._request: _Request | None = None
        self._surplus_steps = 0
        self._newest_rows_s = 0.0
        self._look_timer: asyncio.TimerHandle | None = None
        self._is_draining = self._is_held = False
        self._full_call_no = self._given_call_no = self._given_steps = 0
        self.on_ask: Callable[[], None] = lambda: None
        """Called when the learner asks."""

    def ask(self, want_steps: int, wait_s: float, done: Callable[[Blocks], None], *, or_fewer: bool = False, call_no: int = 0) -> None:
        """Call `done` with `want_steps` steps as soon as there are as many; after `wait_s` with none, and while the server drains with all.

        With `or_fewer` it takes what there is after `wait_s`: full pages, ended episodes, and pages older than `max_segment_age_s`. `done`
        is called once, on the loop thread. `call_no` is the learner's number of the call that asks, for `call_is_full`.
        """
        self.on_ask()
        if self._most_steps is not None:
            want_steps = min(want_steps, self._most_steps)
        timer = asyncio.get_running_loop().call_later(wait_s, self._time_out)
        self._request = _Request(want_steps, timer, done, or_fewer, call_no)
        if call_no != self._given_call_no:
            self._given_call_no, self._given_steps = call_no, 0
        if 0 < call_no <= self._full_call_no:
            self.call_is_full(call_no)
            return
        self._room.open(want_steps, more=call_no > 0 and want_steps < self.demand.fragment_steps)
        self.look()

    def made_for(self, call_no: int) -> tuple[int, int]:
        """Return the steps that were handed off for a call of the learner's, and those that could be handed off now."""
        return (self._given_steps if call_no == self._given_call_no else 0), self._trajectories.steps_ready

    def call_is_full(self, call_no: int) -> None:
        """Answer a request of this call, or of one before it, with what there is: all serving actors together have enough."""
        self._full_call_no = max(self._full_call_no, call_no)
        request = self._request
        if request is None or not 0 < request.call_no <= call_no:
            return
        if ready := self._trajectories.steps_ready:
            request.want_steps = ready + self._surplus_steps
            self._room.end_at(ready)
            self.look()
        else:
            self._room.close(0)  # what clients did now would be of a policy that is learned from already
            self.interrupt()

    def interrupt(self) -> None:
        """Answer the request with nothing: what is recorded goes into a later one."""
        if (request := self._request) is not None:
            self._request = None
            request.timer.cancel()
            request.done([])

    def hold(self, is_held: bool) -> None:
        """Answer requests with nothing, the one that waits at once, for no answer would arrive; or go on as before."""
        self._is_held = is_held
        if is_held:
            self.interrupt()
        else:
            self.look()

    def note_rows(self) -> None:
        """Note that rows were applied."""
        self._newest_rows_s = asyncio.get_running_loop().time()
        if self._request is not None:
            self.look()

    def drain(self) -> None:
        """Answer requests at once from now on."""
        self._is_draining = self._trajectories.queue.is_draining = True
        self.look()

    def look(self, *, last_call: bool = False) -> None:
        """Answer the request if there are steps enough; its `last_call` does not wait for steps that are still to come."""
        request, ready = self._request, self._trajectories.steps_ready
        if request is None:
            return
        if self._is_draining:
            self._answer(request, ready, self._trajectories.open_pages())
            return
        want = max(1, request.want_steps - self._surplus_steps)
        if self._is_held or ready < want or (not last_call and self._last_steps_are_to_come(request)):
            return
        if self._takes_everything(want, ready):
            self._answer(request, ready, self._trajectories.open_pages())
        else:
            self._answer(request, want, self._oldest_pages(want - self._trajectories.queue.steps_waiting))

    def _takes_everything(self, want: int, ready: int) -> bool:
        """Tell whether nothing is left for the next batch.

        More than one step too many for each open episode can only come from clients that can't wait; these steps are left.
        """
        demand = self.demand
        return demand.on_policy and (demand.whole_episodes or ready <= want + self._trajectories.pages_open)

    def _last_steps_are_to_come(self, request: _Request) -> bool:
        """Tell whether clients are making steps of this batch now, and look again when the wait for them is over."""
        if not self.demand.on_policy or self.demand.batches_ahead > 0 or not self._withheld.awaited:
            return False
        now_s = asyncio.get_running_loop().time()
        if request.enough_s is None:
            request.enough_s = now_s
        until_s = min(max(self._newest_rows_s, request.enough_s) + _QUIET_S, request.enough_s + _LAST_STEPS_WAIT_S)
        if now_s >= until_s:
            return False
        if self._look_timer is None:
            self._look_timer = asyncio.get_running_loop().call_later(until_s - now_s, self._look_again)
        return True

    def _look_again(self) -> None:
        self._look_timer = None
        self.look()

    def _time_out(self) -> None:
        self.look(last_call=True)
        request = self._request
        if request is None:
            return
        if not request.or_fewer or self._is_held:
            self._request = None
            request.done([])
            return
        old = self._trajectories.open_pages(time.monotonic() - self._max_segment_age_s)
        waiting = self._trajectories.queue.steps_waiting + int(self._trajectories.ready_in_pages(old).sum())
        self._answer(request, min(request.want_steps, waiting), old)

    def _oldest_pages(self, missing_steps: int) -> npt.NDArray[np.int64]:
        """Return the open pages that have so many steps together, the oldest first."""
        slots = self._trajectories.open_pages() if missing_steps > 0 else np.empty(0, np.int64)
        enough = np.searchsorted(np.cumsum(self._trajectories.ready_in_pages(slots)), missing_steps) + 1
        return slots[:enough]

    def _answer(self, request: _Request, steps: int, pages: npt.NDArray[np.int64]) -> None:
        """Hand off so many steps, once the open pages of these episodes are closed."""
        self._request = None
        request.timer.cancel()
        self._room.close(steps)
        self._close_pages(pages, steps, request)

    def _close_pages(self, slots: npt.NDArray[np.int64], steps: int, request: _Request) -> None:
        now, later = slots[: self._segments_per_turn], slots[self._segments_per_turn :]
        self._trajectories.close_pages(now)
        if later.size:
            asyncio.get_running_loop().call_soon(self._close_pages, later, steps, request)
        else:
            self._copy_out([], steps, request)

    def _copy_out(self, blocks: Blocks, steps: int, request: _Request) -> None:
        """Copy `steps` waiting steps out, a few segments in each turn of the loop."""
        block = self._trajectories.collect(self._segments_per_turn, steps, self._policy.weights_seq_no)
        if block is not None:
            blocks.append(block)
            self._given_steps += block.steps
            asyncio.get_running_loop().call_soon(self._copy_out, blocks, steps - block.steps, request)
            return
        if not self.demand.on_policy:
            self._surplus_steps = max(0, self._surplus_steps + sum(block.steps for block in blocks) - request.want_steps)
        request.done(blocks)
        self._room.tell()
