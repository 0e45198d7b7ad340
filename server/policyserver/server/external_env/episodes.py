"""Episodes of an ExternalEnv in this process: its calls become rows of the episode core, and the core's actions their answers."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.env.external_env import ExternalEnv

from policyserver.common.errors import EpisodeFinishedError, InvalidInputError, PolicyServerError, ServerUnavailableError
from policyserver.common.flags import StepFlag
from policyserver.common.spaces import Array, argument_names, flatten, flatten_batch, unflatten
from policyserver.server.episodes.core import EpisodeCore
from policyserver.server.episodes.received_rows import ReceivedRows, Replies
from policyserver.server.external_env.hooks import CallQueue, EnvironmentCall, FinishedIds, Line, OpenEpisodes

logger = logging.getLogger(__name__)

_START, _GIVEN, _OVERRIDE = int(StepFlag.START), int(StepFlag.ACTION_GIVEN), int(StepFlag.OVERRIDE)
_TERMINATED, _DISABLED = int(StepFlag.TERMINATED), int(StepFlag.TRAINING_DISABLED)
# An end that the server could not take now is sent again, for nobody waits for it who could do that.
_END_RETRY_S = 0.1
_MOST_END_TRIES = 600


class ExternalEnvEpisodes:
    """Answer the calls of one ExternalEnv. Owned by the loop thread, on which it must be made.

    RLlib drives such an environment through `to_base_env()` and `poll()`, which is never called here. All items that arrive in one turn of
    the loop become one `ReceivedRows`; of one episode, only one item is on its way at a time.
    """

    def __init__(
        self,
        env: ExternalEnv,
        core: EpisodeCore,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        finished_remembered: int,
    ) -> None:
        """Take an environment over; episodes that it has begun already come along.

        Args:
            env: The environment, whose thread need not run yet.
            core: What answers.
            observation_space: What its observations are.
            action_space: What its actions are.
            finished_remembered: Ids of ended episodes that are refused as such, the newest.
        """
        self._core = core
        self._owner = core.connect(f"external-env:{uuid.uuid4().hex}")
        self._spaces = observation_space, action_space
        self._arguments = argument_names(observation_space, action_space)
        self._loop = asyncio.get_running_loop()
        self._no_wait = 0 if getattr(env, "waits_for_learner", True) else int(StepFlag.NO_WAIT)
        self._inbox = CallQueue(self._loop, self._take)
        self._names = 0
        self._unsettled: set[EnvironmentCall] = set()
        self._when_settled: Callable[[], None] | None = None
        self._again: list[EnvironmentCall] = []
        self._open = OpenEpisodes(self._inbox)
        before = env._episodes
        for episode_id, episode in list(before.items()):
            self._open.adopt(episode_id, episode)
        env._finished = FinishedIds(env._finished, finished_remembered)
        env._episodes = self._open

    @property
    def is_closed(self) -> bool:
        """Whether calls are refused, because the server has stopped or `run()` is over. Any thread may ask."""
        return self._inbox.is_closed

    def stop(self, error: PolicyServerError) -> None:
        """Answer everybody who waits, and every later call, with an error."""
        self._inbox.close(error)
        self._when_settled = None
        for call in (*self._unsettled, *self._inbox.take()):
            call.settle(error)
        self._unsettled.clear()

    def finish(self, done: Callable[[], None]) -> None:
        """Refuse calls from now on; once those before are answered, end what is open as truncated and call `done`."""
        self._inbox.close(ServerUnavailableError("run() of the environment is over: nobody serves its episodes any more"))
        self._take()
        self._when_settled = partial(self._end_all, done)
        self._note_settled()

    def _end_all(self, done: Callable[[], None]) -> None:
        if self._open:
            logger.warning("run() of the environment is over: its %d open episodes end as truncated", len(self._open))
        self._core.reap(self._owner, [episode.data_queue.name for episode in self._open.values()])
        done()

    # Items to rows -------------------------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Send what arrived."""
        ready = []
        for call in self._inbox.take():
            self._unsettled.add(call)
            line = call.line
            if line.is_over:
                self._settle(call, EpisodeFinishedError(f"Episode {line.episode_id} has already completed."))
            elif line.is_busy:
                line.waiting.append(call)
            else:
                line.is_busy = True
                ready.append(call)
        self._send(ready)

    def _send(self, calls: list[EnvironmentCall]) -> None:
        """Send items of different episodes. Ends go by themselves: they are never withheld, as steps may be."""
        ends: list[EnvironmentCall] = []
        steps: list[EnvironmentCall] = []
        for call in calls:
            if call not in self._unsettled:  # the server stops
                continue
            if call.ends and call.line.sequence == 0:  # without a step it is no episode for anybody
                self._close(call.line)
                self._settle(call, None)
                self._go_on(call.line)
            else:
                (ends if call.ends else steps).append(call)
        for part in (ends, steps):
            if part:
                self._submit(part)

    def _submit(self, calls: list[EnvironmentCall]) -> None:
        calls = self._without(calls, {index: call.error for index, call in enumerate(calls) if call.error is not None})
        observations, errors = columns_of(self._spaces[0], "observation", [call.observation for call in calls])
        calls = self._without(calls, errors)
        giving = [index for index, call in enumerate(calls) if call.given is not None]
        actions, errors = columns_of(self._spaces[1], "action", [calls[index].given for index in giving]) if giving else ([], {})
        if errors:
            errors = {giving[place]: error for place, error in errors.items()}
            observations = [np.delete(column, list(errors), axis=0) for column in observations]
            calls = self._without(calls, errors)
        if not calls:
            return
        for index, call in enumerate(calls):
            self._number(call, observations, index)
        rows = ReceivedRows(
            np.array([call.line.handle if call.sequence else 0 for call in calls], np.uint64),
            np.array([call.sequence for call in calls], np.uint32),
            np.array([call.flags | self._no_wait for call in calls], np.uint8),
            np.array([call.sent_reward for call in calls], np.float64),
            observations,
            actions,
            [call.line.name for call in calls if call.flags & _START],
            {row: info for row, call in enumerate(calls) if (info := call.info or call.line.info)},
            [str(call.line.episode_id) for call in calls if call.flags & _START],
        )
        self._ask(calls, rows)

    def _ask(self, calls: list[EnvironmentCall], rows: ReceivedRows) -> None:
        self._core.submit(rows, self._owner).add_done_callback(partial(self._answered, calls, rows))

    def _without(self, calls: list[EnvironmentCall], errors: Mapping[int, PolicyServerError]) -> list[EnvironmentCall]:
        """Refuse those that have errors and return the others."""
        self._core.statistics.rows_refused += len(errors)
        for index, error in errors.items():
            self._refuse(calls[index], error)
        return [call for index, call in enumerate(calls) if index not in errors] if errors else calls

    def _number(self, call: EnvironmentCall, observations: list[Array], index: int) -> None:
        """Give an item, whose observation is row `index`, its place in its episode."""
        line = call.line
        flags = _TERMINATED if call.ends else _GIVEN if call.given is not None else 0
        if not line.name:
            self._names += 1
            line.name = f"{line.episode_id}#{self._names}"  # the core remembers ended ids its own way
        unheard, line.unheard = line.unheard, None
        if unheard is not None and _says_again(call, unheard, [column[index] for column in observations]):
            call.repeats = unheard
            call.sequence, call.sent_reward = unheard.sequence, unheard.sent_reward
            call.flags = unheard.flags | (flags | _OVERRIDE if flags else 0)
            self._keep(call)
            return
        if line.sequence == 0:
            flags |= _START if line.training else _START | _DISABLED
            self._keep(call)
        call.sequence, call.flags, call.sent_reward = line.sequence, flags, line.reward + call.reward

    def _keep(self, call: EnvironmentCall) -> None:
        """Keep the reward and the info of an item that does not take them along for the episode's next one."""
        line, reward = call.line, call.reward
        call.reward = 0.0
        line.info, call.info = call.info or line.info, None
        if line.sequence > 0:
            line.reward += reward
        elif reward != 0.0:
            level = logging.DEBUG if self._core.statistics.rewards_dropped else logging.WARNING
            self._core.statistics.rewards_dropped += 1
            logger.log(level, "episode %s: reward %g before the first action belongs to no action: dropped", line.episode_id, reward)

    # Replies to answers --------------------------------------------------------------------------------------------------------------

    def _answered(self, calls: list[EnvironmentCall], rows: ReceivedRows, future: asyncio.Future[Replies]) -> None:
        replies = future.result()
        if replies.waiting:
            waiting = [row for row, refusal in replies.refusals.items() if refusal.reason == "LEARNER_BEHIND"]
            for row in waiting:
                calls[row].waits_for_learner = True
            self._core.room.when_open(partial(self._ask, [calls[row] for row in waiting], rows.select_asking(waiting)))
        actions = values_of(self._spaces[1], replies.actions)
        for index, call in enumerate(calls):
            if call not in self._unsettled:  # the server stops
                continue
            if refusal := replies.error_of(index):
                refusal.field = self._arguments.get(refusal.field, refusal.field)
                if refusal.reason != "LEARNER_BEHIND":
                    self._refuse(call, refusal)
                continue
            line = call.line
            call.waits_for_learner = False
            line.handle = int(replies.handles[index])
            if call.repeats is None:
                line.sequence += 1
                line.reward, line.info = 0.0, None
            if call.ends:
                self._close(line)
                self._settle(call, None)
            else:
                self._settle(call, actions[index])
            if call.abandoned:
                call.said = [column[index] for column in rows.observations]
                line.unheard = call
            self._go_on(line)

    def _refuse(self, call: EnvironmentCall, error: PolicyServerError) -> None:
        """Take note that nothing of an item was applied: what it brought is for the episode's next one."""
        line = call.line
        if call.repeats is not None:
            line.unheard, call.repeats = call.repeats, None
        elif call.ends and not isinstance(error, InvalidInputError) and call.tries < _MOST_END_TRIES:
            call.tries += 1
            if not self._again:
                self._loop.call_later(_END_RETRY_S, self._send_again)
            self._again.append(call)
            return
        if call.ends:
            logger.warning("the end of episode %s is refused: it ends as truncated at its last complete step: %s", line.episode_id, error)
            self._core.reap(self._owner, [line.name])
            self._close(line)
        elif error.reason != "BAD_REWARD":
            self._keep(call)
        self._settle(call, error)
        self._go_on(line)

    def _send_again(self) -> None:
        calls, self._again = self._again, []
        self._send(calls)

    def _go_on(self, line: Line) -> None:
        """Send what came while the episode's item was on its way."""
        line.is_busy = False
        waiting, line.waiting = line.waiting, []
        for call in waiting:
            if line.is_over:
                self._settle(call, EpisodeFinishedError(f"Episode {line.episode_id} has already completed."))
            elif line.is_busy:
                line.waiting.append(call)
            else:
                line.is_busy = True
                self._loop.call_soon(self._send, [call])

    def _close(self, line: Line) -> None:
        line.is_over = True
        self._open.pop(line.episode_id, None)

    def _settle(self, call: EnvironmentCall, outcome: Any) -> None:
        self._unsettled.discard(call)
        call.settle(outcome)
        self._note_settled()

    def _note_settled(self) -> None:
        if self._when_settled is not None and not self._unsettled:
            when_settled, self._when_settled = self._when_settled, None
            when_settled()


def columns_of(space: gym.Space[Any], name: str, values: Sequence[Any]) -> tuple[list[Array], dict[int, PolicyServerError]]:
    """Turn values of a space into columns, all at once if all are good.

    Returns:
        One array per leaf, of the values that fit the space but for its bounds, and the errors of the others by index.
    """
    if not values:
        return [], {}
    try:
        return flatten_batch(space, _transposed(space, values), name, len(values)), {}
    except Exception:  # whatever a value of the environment's does when it is read
        logger.debug("a value of %d does not fit; looking at each", len(values))
    good: list[list[Array]] = []
    errors: dict[int, PolicyServerError] = {}
    for index, value in enumerate(values):
        try:
            good.append(flatten(space, value, name))
        except InvalidInputError as error:
            errors[index] = error
        except Exception as error:
            text = f"{name}: expected a value of {space}, received {type(value).__name__}, which can't be read: {error!r}"
            errors[index] = InvalidInputError(text, reason="BAD_ACTION" if name == "action" else "BAD_OBSERVATION", field=name)
    return [np.stack(column) for column in zip(*good, strict=True)], errors


def values_of(space: gym.Space[Any], columns: list[Array]) -> list[Any]:
    """Turn columns, one array per leaf, into the values of a space, one per row."""
    is_simple = isinstance(space, gym.spaces.Discrete) or (space.shape and not isinstance(space, gym.spaces.Dict | gym.spaces.Tuple))
    if is_simple:
        return list(columns[0])  # which is many times faster than one by one
    return [unflatten(space, [column[row, ...] for column in columns]) for row in range(len(columns[0]))]


def _transposed(space: gym.Space[Any], values: Sequence[Any]) -> Any:
    """Turn n values into one with the structure of each, whose leaves are lists of n.

    Raises:
        ValueError: One has another structure.
    """
    if isinstance(space, gym.spaces.Dict):
        if any(not isinstance(value, Mapping) or value.keys() != space.spaces.keys() for value in values):
            raise ValueError("keys")
        return {key: _transposed(part, [value[key] for value in values]) for key, part in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        if any(not isinstance(value, tuple | list) or len(value) != len(space.spaces) for value in values):
            raise ValueError("length")
        return tuple(_transposed(part, [value[place] for value in values]) for place, part in enumerate(space.spaces))
    return values


def _says_again(call: EnvironmentCall, unheard: EnvironmentCall, observation: list[Array]) -> bool:
    """Tell whether an item repeats one whose answer nobody waited for, or replaces the action of that answer."""
    if not unheard.abandoned or call.ends or (call.given is None and unheard.given is not None):
        return False
    return all(np.array_equal(new, old) for new, old in zip(observation, unheard.said, strict=True))
