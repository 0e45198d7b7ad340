"""Episodes of an ExternalEnv, their calls on the way to the serving loop, and the answers that its threads wait for."""

from __future__ import annotations

import contextlib
import copy
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from ray import cloudpickle

from policyserver.common.caller_episode import CallerEpisode
from policyserver.common.errors import ActionTimeoutError, InvalidInputError, PolicyServerError
from policyserver.common.spaces import Array
from policyserver.server.episodes.received_rows import PolicyWanted

logger = logging.getLogger(__name__)

_PLAIN = (bool, int, float, str, bytes, type(None), np.number)


class ExternalEnvTimeoutError(ActionTimeoutError, queue.Empty):
    """No answer within the time that RLlib's ExternalEnv waits. Also the `queue.Empty` that it raises itself."""


class EnvironmentCall:
    """A call of get_action, log_action or end_episode, and its answer. Made and awaited on the caller's thread, settled on the loop's."""

    def __init__(
        self, episode: EnvironmentEpisode, observation: Any, given: Any = None, *, ends: bool = False, reward: float, info: Any
    ) -> None:
        self.episode = episode
        self.observation = observation
        self.given = given
        """The action that the environment took by itself; None asks for one."""
        self.ends = ends
        self.reward = reward
        """Rewards that were logged since the episode's call before."""
        self.info = info
        self.error: PolicyServerError | None = None
        """What is wrong with it, if that is known before it is sent."""
        if ends:
            try:
                self.observation = copy.deepcopy(observation)  # the caller goes on at once and may overwrite it
            except Exception as error:
                self.error = InvalidInputError(f"observation: expected one that can be copied, {error!r}", reason="BAD_OBSERVATION")
        self.is_abandoned = False
        """Whether its caller waits no longer."""
        # What the loop thread notes.
        self.flags: int | None = None
        """The flags of its row; None while it has none."""
        self.tries = 0
        self.waits_for_learner = False
        """Stays true while it is asked again and answered: the caller may look at any moment in between."""
        self.sent_observation: list[Array] = []
        """The observation's leaves, of a call that was applied without an answer to its caller."""
        self._outcome: Any = None
        self._is_settled = False
        self._answered = threading.Lock()
        self._answered.acquire()

    def settle(self, outcome: Any) -> None:
        """Give the caller an action, or a PolicyServerError to raise. The first outcome counts."""
        if not self._is_settled:
            self._is_settled = True
            self._outcome = outcome
            self._answered.release()

    def wait(self, timeout_s: float) -> Any:
        """Return the action.

        Raises:
            ExternalEnvTimeoutError: No answer in time; a late one is dropped, and never answers the next call.
            PolicyServerError: The call was refused, or the server stopped.
        """
        is_answered = self._answered.acquire(timeout=timeout_s)
        while not is_answered and self.waits_for_learner:  # which does not count; the room's own bound ends it
            is_answered = self._answered.acquire(timeout=timeout_s)
        if not is_answered:
            self.is_abandoned = True
            if not self._answered.acquire(blocking=False):
                raise ExternalEnvTimeoutError(
                    f"Episode {self.episode.id}: no action within {timeout_s:g} s; the episode goes on: ask again with the same "
                    "observation, or log the action that was taken instead"
                )
            self.is_abandoned = False  # the answer came just now
        if isinstance(self._outcome, PolicyServerError):
            raise copy.copy(self._outcome)  # one error may be the answer to many callers, and each thread adds its traceback
        return self._outcome


class EnvironmentEpisode(CallerEpisode[EnvironmentCall]):
    """An open episode of an ExternalEnv. In flight stays a call whose caller did not wait for its answer."""

    __slots__ = ("calls", "has_ended", "id", "is_busy", "logged_info", "logged_reward", "name", "wanted")

    def __init__(self, episode_id: Hashable, training_enabled: bool, wanted: PolicyWanted) -> None:
        super().__init__(training_enabled)
        self.id = episode_id
        self.wanted = wanted
        """Which policy decides it, and how."""
        self.logged_reward = 0.0
        """Rewards logged since the newest call. Only the caller touches these and the info: an episode's calls follow each other."""
        self.logged_info: dict[str, Any] | None = None
        # All else is the loop thread's.
        self.name = ""
        """The id that the core knows it by; empty until its first call is sent."""
        self.is_busy = False
        """Whether a call of the episode is on its way through the core."""
        self.calls: list[EnvironmentCall] = []
        """Calls that came meanwhile: the callers of those before did not wait for their answers."""
        self.has_ended = False


class CallQueue:
    """Calls from the environment's threads to the loop, in the order they came. A crowd of them wakes the loop once.

    Unbounded by itself: each open episode's thread waits for its call's answer, and episodes are bounded by `episodes.max_open`.
    """

    def __init__(self) -> None:
        """Begin without a loop: calls wait until there is one."""
        self._wake_loop: Callable[[], object] | None = None
        self._calls: deque[EnvironmentCall] = deque()
        self._is_awake = False
        self._closed: PolicyServerError | None = None
        self.infos_lost = 0
        """Infos that were not recorded because they can't travel to the learner."""

    def serve(self, wake_loop: Callable[[], object]) -> None:
        """Call a function whenever calls have come, those that wait already included; from any thread."""
        self._wake_loop = wake_loop
        self._wake()

    def put(self, call: EnvironmentCall) -> None:
        """Hand a call to the loop.

        Raises:
            PolicyServerError: The queue is closed.
        """
        self.check()
        self._calls.append(call)
        if not self._is_awake:
            self._wake()
        self.check()  # closed just now: the loop may not look into it again

    def take(self) -> list[EnvironmentCall]:
        """Return what arrived, in the order it came. Called by the loop thread."""
        self._is_awake = False  # first, so that a call that comes now wakes the loop again
        calls = []
        while self._calls:
            calls.append(self._calls.popleft())
        return calls

    def close(self, error: PolicyServerError) -> None:
        """Refuse calls from now on with an error."""
        self._closed = self._closed or error

    @property
    def is_closed(self) -> bool:
        """Whether calls are refused."""
        return self._closed is not None

    def check(self) -> None:
        """Raise the error the queue was closed with, if it is closed."""
        if self._closed is not None:
            raise copy.copy(self._closed)

    def copied(self, info: Any) -> dict[str, Any] | None:
        """Copy an info as it is now, for its owner may change it and the learner gets it by pickle; None if it can't travel."""
        try:
            if all(isinstance(value, _PLAIN) for value in info.values()):
                return dict(info)
            copied: dict[str, Any] = cloudpickle.loads(cloudpickle.dumps(info))
            return copied
        except Exception:
            level = logging.WARNING if self.infos_lost == 0 else logging.DEBUG
            self.infos_lost += 1
            logger.log(level, "an info can't be pickled, so it is not recorded; its step is", exc_info=True)
            return None

    def _wake(self) -> None:
        if self._wake_loop is not None:
            self._is_awake = True
            with contextlib.suppress(RuntimeError):  # the loop is closed, and so is the queue
                self._wake_loop()
