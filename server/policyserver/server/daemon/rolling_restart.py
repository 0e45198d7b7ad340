"""Replaces the serving actors one after another, without a step lost.

An actor that is to go starts no new episodes, which begin on the others; its open ones have a time to end in. Then it answers nothing more,
ends what is still open as truncated, and gives all its steps to the learner's next `sample()`. Once these are taken, it ends between two
such calls, and RLlib starts it again, as after a crash, with the weights that the daemon keeps at hand. The next actor's turn comes when it
serves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

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


class RollingRestart:
    """One restart of the actors of a server."""

    def __init__(
        self,
        ask: Callable[[RetirementOrder], list[RetirementState]],
        end_at_safe_point: Callable[[int], Future[bool]],
        wait: Callable[[float], bool],
    ) -> None:
        """Take what asks all actors, what ends one between two calls of `sample()`, and what waits and says whether the server stops."""
        self._ask = ask
        self._end = end_at_safe_point
        self._wait = wait

    def run(self, drain_timeout_s: float) -> list[Replaced]:
        """Replace all actors that answer; each open episode has `drain_timeout_s` to end in.

        Raises:
            RestartError: An actor does not hand off its steps, does not come back, or the server stops. Those before it are replaced.
        """
        indices = sorted(state.number for state in self._ask(RetirementOrder(0, "")) if state.number > 0)
        if not indices:
            raise RestartError(
                "expected serving actors, received no answer from any: with num_env_runners = 0 the learner's process serves"
            )
        return [self._replace(index, drain_timeout_s) for index in indices]

    def _replace(self, index: int, drain_timeout_s: float) -> Replaced:
        begun = time.monotonic()
        before: RetirementState | None = None

        def has_begun() -> bool:
            nonlocal before
            before = self._state(index, "retire")
            return before is not None

        if not self._until(has_begun, _BEGIN_S, index) or before is None:
            raise RestartError(f"actor {index}: gives no answer, and is left as it is; see the log, and ask again")
        boot_id = before.boot_id
        logger.info("actor %d: starts no new episodes; %d have %g s to end in", index, before.episodes_open, drain_timeout_s)

        def is_empty() -> bool:
            state = self._state(index, "retire")
            return state is not None and state.episodes_open == 0

        self._until(is_empty, drain_timeout_s, index)
        last = self._state(index, "retire")
        cut = last.episodes_open if last is not None else 0

        def has_gone() -> bool:
            state = self._state(index, "leave")
            if state is not None and state.boot_id != boot_id:
                return True  # it died: what it had is lost as after any crash
            return state is not None and state.is_empty and self._end(index).result()

        if not self._until(has_gone, HAND_OFF_S, index):
            raise RestartError(
                f"actor {index}: the learner has not taken its steps within {HAND_OFF_S:g} s; it serves nothing until it ends"
            )

        def is_back() -> bool:
            state = self._state(index, "")
            return state is not None and state.boot_id != boot_id and bool(state.addresses)

        if not self._until(is_back, COME_BACK_S, index):
            raise RestartError(
                f"actor {index}: not back within {COME_BACK_S:g} s; its error is in the log, and the others are left as they are"
            )
        state = self._state(index, "")
        seconds = time.monotonic() - begun
        logger.info("actor %d: replaced after %.1f s, %d episodes cut", index, seconds, cut)
        return Replaced(index, state.boot_id if state is not None else "", cut, seconds)

    def _until(self, condition: Callable[[], bool], timeout_s: float, index: int) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() >= deadline:
                return False
            if self._wait(_LOOK_S):
                raise RestartError(f"actor {index}: the server stops")
        return True

    def _state(self, index: int, phase: Phase) -> RetirementState | None:
        return next((state for state in self._ask(RetirementOrder(index, phase)) if state.number == index), None)


def ask_by(link_ask: Callable[..., list[Any]], kind: str) -> Callable[[RetirementOrder], list[RetirementState]]:
    """Return what asks all actors by the driver link."""
    return lambda order: link_ask(_ANSWER_S, kind=kind, content=order)
