"""Replaces the serving actors one after another, without a step lost.

An actor that is to go starts no new episodes, which begin on the others; its open ones have a time to end in. Then it answers nothing more,
ends what is still open as truncated, and gives all its steps to the learner's next `sample()`. Once these are taken, and the daemon has
said that it knows which episodes ended, it ends between two such calls, and RLlib starts it again, as after a crash, with the weights that
the daemon keeps at hand. The next actor's turn comes when it serves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from policyserver.server.processes.retirement_state import Phase, RetirementOrder, RetirementState

logger = logging.getLogger(__name__)

_LOOK_S = 0.25
"""From one look at the actors to the next."""
_ANSWER_S = 2.0
"""Longest wait for their answers."""
_BEGIN_S = 15.0
"""Longest wait for an actor's first answer."""
HAND_OFF_S = 300.0
"""Longest wait for the learner to take the steps of an actor that leaves: an update may run meanwhile."""
END_S = 10.0
"""Longest wait for the end of the process itself, which has nothing left to do; then it is killed."""
COME_BACK_S = 300.0
"""Longest wait for the actor in its place."""


class RestartError(RuntimeError):
    """The restart was left; the text says at which actor and why."""


class Replaced(NamedTuple):
    """One actor that was replaced."""

    number: int
    boot_id: str
    episodes_cut: int
    """Open when their time to end was over."""
    seconds: float


class Ends(Protocol):
    """What ends actors, see `actor_ends`."""

    def begin(self, index: int) -> None:
        """Note which process of an actor is to go."""

    def end(self, index: int, boot_id: str) -> Future[bool]:
        """End this process of an actor between two calls of `sample()`, if it has handed off everything; tells whether it ends."""

    def kill(self, index: int) -> bool:
        """Kill the process that was to go, if it is still there; returns whether it was."""

    def given_up(self, index: int) -> None:
        """Take note that the replacement of an actor was left."""


class Removed(NamedTuple):
    """One actor that is gone for good."""

    number: int
    episodes_cut: int
    """Open when their time to end was over."""
    seconds: float


class _Left(NamedTuple):
    """How an actor left."""

    boot_id: str
    died: bool
    """Whether it died before it had handed off everything."""
    episodes_cut: int
    lost: str
    """Why steps of it are lost, if they are: it still lives then, and answers nothing."""


class RollingRestart:
    """One restart of the actors of a server, or the end of some."""

    def __init__(
        self,
        ask: Callable[[RetirementOrder], list[RetirementState]],
        ends: Ends,
        wait: Callable[[float], bool],
        is_paused: Callable[[], bool] = lambda: False,
        note_replaced: Callable[[int, bool], None] = lambda index, is_replaced: None,
    ) -> None:
        """Take what the restart needs.

        Args:
            ask: Asks all actors.
            ends: Ends them.
            wait: Waits so many seconds and says whether the server stops.
            is_paused: Says whether learning is paused, so that no steps are taken.
            note_replaced: Called with the index of an actor whose process ends, so that a successor takes its place, and whether it
                does: not when that is given up.
        """
        self._ask = ask
        self._ends = ends
        self._wait = wait
        self._is_paused = is_paused
        self._note_replaced = note_replaced

    def run(self, drain_timeout_s: float) -> list[Replaced]:
        """Replace all actors that answer; each open episode has `drain_timeout_s` to end in.

        Raises:
            RestartError: An actor does not hand off its steps, does not come back, learning is paused, or the server stops. Those before it
                are replaced.
        """
        indices = sorted(state.number for state in self._ask(RetirementOrder(0, "")) if state.number > 0)
        if not indices:
            raise RestartError(
                "expected serving actors, received no answer from any: with num_env_runners = 0 the learner's process serves"
            )
        return [self._replace(index, drain_timeout_s) for index in indices]

    def remove(self, index: int, drain_timeout_s: float, force: Callable[[int], Future[bool]]) -> Removed:
        """Have an actor leave for good: its end is one without a successor, and `force` ends it whatever it has not handed off.

        Raises:
            RestartError: As of `run`; the text says whether the actor is still there.
        """
        begun = time.monotonic()
        left = self._leave(index, drain_timeout_s)
        if left.lost or left.died:
            forced = force(index)
            if not self._until(forced.done, COME_BACK_S, index) or not forced.result():
                raise RestartError(f"actor {index}: {left.lost or 'it died'}; not ended for good within {COME_BACK_S:g} s, ask again")
        self._until(lambda: self._state(index) is None, COME_BACK_S, index)  # so that another one may have its port
        if left.lost:
            raise RestartError(f"actor {index}: {left.lost}; it is gone for good")
        seconds = time.monotonic() - begun
        logger.info("actor %d: gone for good after %.1f s, %d episodes cut", index, seconds, left.episodes_cut)
        return Removed(index, left.episodes_cut, seconds)

    def _replace(self, index: int, drain_timeout_s: float) -> Replaced:
        self._ends.begin(index)
        try:
            return self._replaced(index, drain_timeout_s)
        except RestartError:
            self._ends.given_up(index)
            self._note_replaced(index, False)
            raise

    def _replaced(self, index: int, drain_timeout_s: float) -> Replaced:
        begun = time.monotonic()
        left = self._leave(index, drain_timeout_s)
        self._note_replaced(index, True)
        lost = left.lost
        if lost:
            self._state(index, "end", left.boot_id)

        kill_at = time.monotonic() + END_S

        def is_back() -> bool:
            nonlocal kill_at
            state = self._state(index)
            if state is not None and state.boot_id != left.boot_id:
                return bool(state.addresses)
            if (now := time.monotonic()) >= kill_at:
                kill_at = now + END_S
                if self._ends.kill(index):
                    logger.warning("actor %d: its process has not ended within %g s, and is killed", index, END_S)
            return False

        if not self._until(is_back, COME_BACK_S, index):
            missing = f"not back within {COME_BACK_S:g} s; its error is in the log, and the others are left as they are"
            raise RestartError(f"actor {index}: {lost}; {missing}" if lost else f"actor {index}: {missing}")
        if lost:
            raise RestartError(f"actor {index}: {lost}; its successor serves, and the actors after it are left as they are")
        state = self._state(index)
        seconds = time.monotonic() - begun
        logger.info("actor %d: replaced after %.1f s, %d episodes cut", index, seconds, left.episodes_cut)
        return Replaced(index, state.boot_id if state is not None else "", left.episodes_cut, seconds)

    def _leave(self, index: int, drain_timeout_s: float) -> _Left:
        """Have an actor start nothing, hand off everything and end."""
        last = self._first_state(index)
        boot_id = last.boot_id

        def is_there(phase: Phase) -> bool:
            """Have it do something; whether the process still is the one that is to go."""
            nonlocal last
            state = self._state(index, phase, boot_id)
            if state is not None and state.boot_id == boot_id:
                last = state
            return state is None or state.boot_id == boot_id

        logger.info("actor %d: starts no new episodes; %d have %g s to end in", index, last.episodes_open, drain_timeout_s)
        died = not self._drain(index, drain_timeout_s, is_there, lambda: last.episodes_open == 0)
        cut = last.episodes_open
        ending: Future[bool] | None = None

        def has_gone() -> bool:
            nonlocal died, ending
            died = died or not is_there("leave")
            if ending is None and last.is_empty:
                ending = self._ends.end(index, boot_id)
            if died or ending is None or not ending.done():
                return died
            ended, ending = ending.result(), None
            return ended

        lost = ""
        if not died:
            gone = False

            def is_decided() -> bool:
                nonlocal gone
                gone = has_gone()
                return gone or (self._is_paused() and last.needs_learner)

            self._until(is_decided, HAND_OFF_S, index)
            if not gone:
                lost = f"{self._why_not_gone(last)}, so it was ended with {last.losses}"
                logger.warning("actor %d: %s", index, lost)
        if died:
            logger.warning("actor %d: died while it was to go; what it had is lost as after any crash", index)
        return _Left(boot_id, died, cut, lost)

    def _why_not_gone(self, last: RetirementState) -> str:
        if not last.needs_learner:
            return f"what it says last has not reached the daemon within {HAND_OFF_S:g} s"
        return "learning is paused" if self._is_paused() else f"the learner has not taken its steps within {HAND_OFF_S:g} s"

    def _first_state(self, index: int) -> RetirementState:
        """Ask it for its state, with nothing to do: an order that it gets after the restart was left would stay."""
        found: RetirementState | None = None

        def has_answered() -> bool:
            nonlocal found
            found = self._state(index)
            return found is not None

        if not self._until(has_answered, _BEGIN_S, index) or found is None:
            raise RestartError(f"actor {index}: gives no answer, and is left as it is; see the log, and ask again")
        return found

    def _drain(self, index: int, timeout_s: float, is_there: Callable[[Phase], bool], is_empty: Callable[[], bool]) -> bool:
        """Let its episodes end; return whether the process is still there."""
        lives = True

        def is_over() -> bool:
            nonlocal lives
            if self._is_paused():
                is_there("stay")
                raise RestartError(f"actor {index}: learning is paused, so it goes on as before; resume learning, then ask again")
            lives = is_there("retire")
            return not lives or is_empty()

        self._until(is_over, timeout_s, index)
        return lives and is_there("retire")

    def _until(self, condition: Callable[[], bool], timeout_s: float, index: int) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() >= deadline:
                return False
            if self._wait(_LOOK_S):
                raise RestartError(f"actor {index}: the server stops")
        return True

    def _state(self, index: int, phase: Phase = "", boot_id: str = "") -> RetirementState | None:
        return next((state for state in self._ask(RetirementOrder(index, phase, boot_id)) if state.number == index), None)


def ask_by(link_ask: Callable[..., list[Any]], kind: str) -> Callable[[RetirementOrder], list[RetirementState]]:
    """Return what asks all actors by the driver link."""
    return lambda order: link_ask(_ANSWER_S, kind=kind, content=order)
