"""What is put inside an ExternalEnv of RLlib's so that its calls reach the episode core: the environment's side of the adapter.

RLlib's environment gives each episode two queues and a wrapper that polls all episodes for items, which loses ends of episodes under load.
Here both queues are replaced by a `Line` as soon as the episode begins. The names of RLlib's that this relies on are pinned by a test.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import queue
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import numpy as np
from ray import cloudpickle

from policyserver.common.errors import ActionTimeoutError, InvalidInputError, PolicyServerError
from policyserver.common.rewards import add_reward, to_reward

logger = logging.getLogger(__name__)

_PLAIN = (bool, int, float, str, bytes, type(None), np.number)


class ExternalEnvTimeoutError(ActionTimeoutError, queue.Empty):
    """No answer within the time that RLlib's ExternalEnv waits. Also the `queue.Empty` that it raises itself."""


class EnvironmentCall:
    """One item of an episode: what get_action, log_action or end_episode was called with, and the answer that is waited for.

    Made and read on the caller's thread, settled on the loop's.
    """

    def __init__(self, line: Line, item: dict[str, Any]) -> None:
        self.line = line
        self.observation = item["obs"]
        self.given = item.get("off_policy_action")
        """The action that the environment took by itself; None asks for one."""
        self.ends = bool(item["terminated"])
        self.info = item["info"]
        self.reward = 0.0
        self.error: PolicyServerError | None = None
        """What is wrong with it, known before it is sent."""
        try:
            self.reward = to_reward(item["reward"])
            if self.ends:
                self.observation = copy.deepcopy(self.observation)  # the caller goes on at once and may overwrite it
        except InvalidInputError as error:
            self.error = error
        except Exception as error:
            self.error = InvalidInputError(f"observation: expected one that can be copied, {error!r}", reason="BAD_OBSERVATION")
        self.abandoned = False
        """Whether its caller waits no longer."""
        # What the loop thread notes.
        self.flags = self.sequence = self.tries = 0
        self.waits_for_learner = False
        self.sent_reward = 0.0
        self.said: list[Any] = []
        """The observation's leaves, of an applied call whose caller did not wait for the answer."""
        self.repeats: EnvironmentCall | None = None
        """Such a call, if this one says the same again."""
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

    def wait(self, timeout_s: float | None) -> Any:
        """Return the action.

        Raises:
            ExternalEnvTimeoutError: No answer in time.
            PolicyServerError: The call was refused, or the server stopped.
        """
        longest_s = -1.0 if timeout_s is None else timeout_s
        is_answered = self._answered.acquire(timeout=longest_s)
        while not is_answered and self.waits_for_learner:  # which is outside that time; the room's own bound ends it
            is_answered = self._answered.acquire(timeout=longest_s)
        if not is_answered:
            self.abandoned = True
            if not self._answered.acquire(blocking=False):
                raise ExternalEnvTimeoutError(
                    f"Episode {self.line.episode_id}: no action within {timeout_s:g} s; the episode goes on: ask again with the same "
                    "observation, or log the action that was taken instead"
                )
            self.abandoned = False  # the answer came just now
        if isinstance(self._outcome, PolicyServerError):
            raise copy.copy(self._outcome)  # one error may be the answer to many callers, and each thread adds its traceback
        return self._outcome


class EarlyEnvironmentCall(EnvironmentCall):
    """An item that lay in RLlib's own queue when the adapter came; its caller waits at RLlib's own."""

    def __init__(self, line: Line, item: dict[str, Any], actions: queue.Queue[Any]) -> None:
        super().__init__(line, item)
        self._actions = actions

    def settle(self, outcome: Any) -> None:
        """Put the action where its caller waits; an error cannot be raised there."""
        if not isinstance(outcome, PolicyServerError):
            self._actions.put(outcome)


class LoggedReward(float):
    """What an episode's rewards since its newest action add up to: it judges a reward where `log_returns` adds it."""

    _line: Line

    def __new__(cls, amount: float, line: Line) -> LoggedReward:
        """Make the sum of an episode."""
        logged = super().__new__(cls, amount)
        logged._line = line
        return logged

    def __add__(self, reward: Any) -> LoggedReward:
        """Add a reward.

        Raises:
            InvalidInputError: It is no finite number, or a step can't carry the sum; nothing was changed.
        """
        return LoggedReward(add_reward(float(self), to_reward(reward), self._line.reward), self._line)


class Line:
    """An episode's line to the core; stands in for both of its queues."""

    def __init__(self, episode: Any, inbox: CallQueue) -> None:
        self.episode_id: Hashable = episode.episode_id
        self.training = bool(episode.training_enabled)
        # Otherwise every item would write "training_enabled" into the info, and that is the caller's own dict.
        episode.training_enabled = True
        self.reward = 0.0
        """Rewards that a refused item brought; written by the loop thread."""
        episode.cur_reward = LoggedReward(episode.cur_reward, self)
        self.early_actions: queue.Queue[Any] | None = None
        self._episode = episode
        self._inbox = inbox
        # From here on the loop thread's.
        self.name = ""
        """The id that the core knows it by; empty until its first item is sent."""
        self.handle = 0
        self.sequence = 0
        """Number of the next observation."""
        self.info: dict[str, Any] | None = None
        """Info that a refused item brought."""
        self.is_busy = False
        """Whether an item of the episode is on its way through the core."""
        self.is_over = False
        """Whether the episode has ended."""
        self.waiting: list[EnvironmentCall] = []
        """Items that came meanwhile: their callers did not wait for the answer."""
        self.unheard: EnvironmentCall | None = None
        """The newest item, if it was applied but its caller did not wait for the answer."""

    # What RLlib's episode calls on its data_queue.

    def put_nowait(self, item: dict[str, Any]) -> None:
        """Take an item of the episode.

        Raises:
            ServerUnavailableError: The server has stopped.
        """
        call = EnvironmentCall(self, item)
        self._episode.cur_reward = LoggedReward(0.0, self)  # RLlib has set it back
        if call.info:
            # RLlib keeps an info and repeats it with every later item; here it belongs to the step it was logged for.
            self._episode.cur_info = {}
            call.info = self._inbox.copied(call.info)
        self._inbox.put(call)

    def empty(self) -> bool:
        """Tell RLlib's poll() that there is nothing for it."""
        return True

    # What RLlib's episode calls on its action_queue.

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Wait for the answer to what this thread has put.

        Raises:
            ExternalEnvTimeoutError: No answer in time; a late one is for nobody, and never for the next call.
            PolicyServerError: The item was refused, or the server stopped.
        """
        call = self._inbox.call_of_this_thread()
        if (call is None or call.line is not self) and self.early_actions is not None:
            return self.early_actions.get(block, timeout)
        assert call is not None, "RLlib's episode puts an item before it waits"
        return call.wait(timeout)


class CallQueue:
    """Items on their way from the environment's threads to the loop. A crowd of them wakes the loop once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, arrived: Callable[[], None]) -> None:
        self._loop = loop
        self._arrived = arrived
        self._calls: deque[EnvironmentCall] = deque()
        self._is_awake = False
        self._closed: PolicyServerError | None = None
        self._threads = threading.local()
        self.infos_lost = 0
        """Infos that were not recorded because they can't travel to the learner."""

    def put(self, call: EnvironmentCall) -> None:
        """Hand an item to the loop, and remember it as the one this thread may wait for.

        Raises:
            PolicyServerError: The inbox is closed.
        """
        self.check()
        self._threads.call = call
        self._calls.append(call)
        if not self._is_awake:
            self._is_awake = True
            try:
                self._loop.call_soon_threadsafe(self._arrived)
            except RuntimeError:  # the loop is closed, and so is the inbox
                pass
        self.check()  # closed just now: perhaps nobody looks into it again

    def take(self) -> list[EnvironmentCall]:
        """Return what arrived, in the order it came. Called by the loop thread."""
        self._is_awake = False  # first, so that an item that comes now wakes the loop again
        calls = []
        while self._calls:
            calls.append(self._calls.popleft())
        return calls

    def call_of_this_thread(self) -> EnvironmentCall | None:
        """Return the item that the calling thread put last, once."""
        call: EnvironmentCall | None = getattr(self._threads, "call", None)
        self._threads.call = None
        return call

    def close(self, error: PolicyServerError) -> None:
        """Refuse items from now on with an error."""
        self._closed = self._closed or error

    @property
    def is_closed(self) -> bool:
        """Whether items are refused."""
        return self._closed is not None

    def check(self) -> None:
        """Raise the error the inbox was closed with, if it is closed."""
        if self._closed is not None:
            raise copy.copy(self._closed)

    def copied(self, info: dict[str, Any]) -> dict[str, Any]:
        """Copy an info as it is now, for its owner may change it and the learner gets it by pickle; one that can't travel becomes empty."""
        try:
            if all(isinstance(value, _PLAIN) for value in info.values()):
                return dict(info)
            copied: dict[str, Any] = cloudpickle.loads(cloudpickle.dumps(info))
            return copied
        except Exception:
            level = logging.WARNING if self.infos_lost == 0 else logging.DEBUG
            self.infos_lost += 1
            logger.log(level, "an info can't be pickled, so it is not recorded; its step is", exc_info=True)
            return {}


class OpenEpisodes(dict[Hashable, Any]):
    """An ExternalEnv's open episodes; each that is added gets its line to the core."""

    def __init__(self, inbox: CallQueue) -> None:
        super().__init__()
        self._inbox = inbox

    def __setitem__(self, episode_id: Hashable, episode: Any) -> None:
        """Add an episode that has just begun.

        Raises:
            ServerUnavailableError: The server has stopped.
        """
        self._inbox.check()
        episode.data_queue = episode.action_queue = Line(episode, self._inbox)
        super().__setitem__(episode_id, episode)

    def adopt(self, episode_id: Hashable, episode: Any) -> None:
        """Add an episode that began before there was an adapter, with what lies in its queue."""
        with episode.results_avail_condition:  # held by whoever puts an item
            items, actions = episode.data_queue, episode.action_queue
            self[episode_id] = episode
            line = episode.data_queue
            line.early_actions = actions
            while not items.empty():
                self._inbox.put(EarlyEnvironmentCall(line, items.get_nowait(), actions))


class FinishedIds:
    """Ids of ended episodes, the newest `capacity` of them: in place of RLlib's set, which grows for ever."""

    def __init__(self, ids: Iterable[Hashable], capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._ids: OrderedDict[Hashable, None] = OrderedDict()
        for episode_id in ids:
            self.add(episode_id)

    def add(self, episode_id: Hashable) -> None:
        """Remember an id."""
        with self._lock:
            self._ids[episode_id] = None
            while len(self._ids) > self._capacity:
                self._ids.popitem(last=False)

    def __contains__(self, episode_id: object) -> bool:
        return episode_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)
