"""Episodes of an ExternalEnv in this process: its calls become rows of the episode core, and the core's actions their answers."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from policyserver.common.caller_episode import belongs_to_no_action
from policyserver.common.errors import EpisodeFinishedError, InvalidInputError, PolicyServerError, ServerUnavailableError
from policyserver.common.flags import StepFlag
from policyserver.common.spaces import Array, argument_names
from policyserver.server.episodes.core import EpisodeCore
from policyserver.server.episodes.received_rows import ReceivedRows, Replies
from policyserver.server.external_env.calls import EnvironmentCall, EnvironmentEpisode
from policyserver.server.external_env.columns import columns_of, values_of
from policyserver.server.external_env.served_environment import ServedEnvironment

logger = logging.getLogger(__name__)

_START, _GIVEN, _TERMINATED = int(StepFlag.START), int(StepFlag.ACTION_GIVEN), int(StepFlag.TERMINATED)
# The server sends an end that it could not take again, for no caller waits for it.
_END_RETRY_S = 0.1
_MOST_END_TRIES = 600


class ExternalEnvEpisodes:
    """Answer the calls of one ExternalEnv. Owned by the loop thread, on which it must be made.

    All calls that arrive in one turn of the loop become one `ReceivedRows`; of one episode, only one is on its way at a time.
    """

    def __init__(
        self, environment: ServedEnvironment, core: EpisodeCore, observation_space: gym.Space[Any], action_space: gym.Space[Any]
    ) -> None:
        """Take the calls of an environment, whose `run()` need not run yet; those that wait already included."""
        self._environment = environment
        self._core = core
        self._client = core.connect(f"external-env:{uuid.uuid4().hex}")
        self._spaces = observation_space, action_space
        self._arguments = argument_names(observation_space, action_space)
        self._loop = asyncio.get_running_loop()
        self._no_wait = 0 if environment.waits_for_learner else int(StepFlag.NO_WAIT)
        self._names = 0
        self._unsettled: set[EnvironmentCall] = set()
        self._when_settled: Callable[[], None] | None = None
        self._again: list[EnvironmentCall] = []
        environment.calls.serve(partial(self._loop.call_soon_threadsafe, self._take))

    @property
    def is_closed(self) -> bool:
        """Whether calls are refused, because the server has stopped or `run()` is over. Any thread may ask."""
        return self._environment.calls.is_closed

    def stop(self, error: PolicyServerError) -> None:
        """Answer all waiting calls, and every later one, with an error."""
        self._environment.calls.close(error)
        self._when_settled = None
        for call in (*self._unsettled, *self._environment.calls.take()):
            call.settle(error)
        self._unsettled.clear()

    def finish(self, done: Callable[[], None]) -> None:
        """Refuse calls from now on; once those before are answered, end what is open as truncated and call `done`."""
        self._environment.calls.close(ServerUnavailableError("run() of the environment is over: its episodes are served no more"))
        self._take()
        self._when_settled = partial(self._end_all, done)
        self._note_settled()

    def _end_all(self, done: Callable[[], None]) -> None:
        episodes = self._environment.open_episodes
        if episodes:
            logger.warning("run() of the environment is over: its %d open episodes end as truncated", len(episodes))
        self._core.reap(self._client, [episode.name for episode in episodes])
        for episode in episodes:
            self._close(episode)
        done()

    # Calls to rows -------------------------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Send what arrived."""
        arrived = self._environment.calls.take()
        self._unsettled.update(arrived)
        self._send([call for call in arrived if self._is_next(call)])

    def _is_next(self, call: EnvironmentCall) -> bool:
        """Tell whether a call is its episode's next one. If not, it waits until the episode is no longer busy, or comes too late."""
        episode = call.episode
        if episode.has_ended:
            self._settle(call, EpisodeFinishedError(f"Episode {episode.id} has already completed."))
        elif episode.is_busy:
            episode.calls.append(call)
        else:
            episode.is_busy = True
            return True
        return False

    def _send(self, calls: list[EnvironmentCall]) -> None:
        """Send calls of different episodes. Ends go by themselves: they are never withheld, as steps may be."""
        ends, steps = list[EnvironmentCall](), list[EnvironmentCall]()
        for call in calls:
            if call not in self._unsettled:  # the server stops
                continue
            if call.ends and call.episode.sequence == 0:  # an episode without a step counts for nothing
                self._close(call.episode)
                self._settle(call, None)
                self._go_on(call.episode)
            else:
                (ends if call.ends else steps).append(call)
        for part in (ends, steps):
            if part:
                self._submit(part)

    def _submit(self, calls: list[EnvironmentCall]) -> None:
        for call in calls:
            self._log(call)
        calls = self._without(calls, {index: call.error for index, call in enumerate(calls) if call.error is not None})
        observations, errors = columns_of(self._spaces[0], "observation", [call.observation for call in calls])
        calls = self._without(calls, errors)
        giving = [index for index, call in enumerate(calls) if call.given is not None]
        actions, errors = columns_of(self._spaces[1], "action", [calls[index].given for index in giving]) if giving else ([], {})
        if errors:
            errors = {giving[place]: error for place, error in errors.items()}
            observations = [np.delete(column, list(errors), axis=0) for column in observations]
            calls = self._without(calls, errors)
        if calls:
            flags = [self._take_row(call, observations, index) for index, call in enumerate(calls)]
            self._ask(calls, self._rows([call.episode for call in calls], flags, observations, actions))

    def _rows(self, episodes: list[EnvironmentEpisode], flags: list[int], observations: list[Array], actions: list[Array]) -> ReceivedRows:
        begin = [episode for episode in episodes if episode.newest == 0]
        return ReceivedRows(
            np.array([episode.handle if episode.newest else 0 for episode in episodes], np.uint64),
            np.array([episode.newest for episode in episodes], np.uint32),
            np.array(flags, np.uint8) | np.uint8(self._no_wait),
            np.array([episode.sent_reward for episode in episodes], np.float64),
            observations,
            actions,
            [episode.name for episode in begin],
            {row: episode.sent_info for row, episode in enumerate(episodes) if episode.sent_info},
            [str(episode.id) for episode in begin],
            wants=[episode.wanted for episode in begin],
        )

    def _ask(self, calls: list[EnvironmentCall], rows: ReceivedRows) -> None:
        self._core.submit(rows, self._client).add_done_callback(partial(self._answered, calls, rows))

    def _without(self, calls: list[EnvironmentCall], errors: Mapping[int, PolicyServerError]) -> list[EnvironmentCall]:
        """Refuse those that have errors and return the others."""
        self._core.statistics.rows_refused += len(errors)
        for index, error in errors.items():
            self._refuse(calls[index], error)
        return [call for index, call in enumerate(calls) if index not in errors] if errors else calls

    def _log(self, call: EnvironmentCall) -> None:
        """Give an episode what was logged before a call."""
        reward, info = call.reward, call.info
        call.reward, call.info = 0.0, None
        if not reward and not info:
            return
        try:
            is_logged = call.episode.log(reward, info)
        except InvalidInputError as error:  # another call was refused meanwhile, and its reward came back
            call.error = error
            return
        if not is_logged:
            self._drop(call.episode, reward)

    def _drop(self, episode: EnvironmentEpisode, reward: float) -> None:
        level = logging.DEBUG if self._core.statistics.rewards_dropped else logging.WARNING
        self._core.statistics.rewards_dropped += 1
        logger.log(level, belongs_to_no_action(episode.id, reward))

    def _take_row(self, call: EnvironmentCall, observations: list[Array], index: int) -> int:
        """Let a call, whose observation is row `index`, be its episode's next row, or the newest again. Return the row's flags."""
        episode = call.episode
        kind = _TERMINATED if call.ends else _GIVEN if call.given is not None else 0
        if not episode.name:
            self._names += 1
            episode.name = f"{episode.id}#{self._names}"  # the core remembers ended ids its own way
        call.flags = self._repeat(call, kind, observations, index)
        if call.flags is None:
            call.flags = episode.take(kind, call)
        return call.flags

    @staticmethod
    def _repeat(call: EnvironmentCall, kind: int, observations: list[Array], index: int) -> int | None:
        """Return the flags of a row that repeats the newest, abandoned one or replaces its action; None if it does neither."""
        episode, before = call.episode, call.episode.in_flight
        if before is None or not before.is_abandoned:
            return None
        same = all(np.array_equal(column[index], leaf) for column, leaf in zip(observations, before.sent_observation, strict=True))
        return episode.retake(kind, same_observation=same, same_action=call.given is None and before.given is None)

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
            self._applied(call, int(replies.handles[index]), actions[index], [column[index] for column in rows.observations])

    def _applied(self, call: EnvironmentCall, handle: int, action: Any, observation: list[Array]) -> None:
        episode = call.episode
        if call.ends:
            episode.answered(handle)
            self._close(episode)
            self._settle(call, None)
        else:
            self._settle(call, action)
            if call.is_abandoned:
                call.sent_observation = observation
                episode.in_flight = call
                episode.recorded(handle)
            else:
                episode.answered(handle)
        self._go_on(episode)

    def _refuse(self, call: EnvironmentCall, error: PolicyServerError) -> None:
        """Note that nothing of a call was applied: what it brought is for the episode's next call."""
        episode = call.episode
        if call.flags is not None:
            if dropped := episode.refused(call.flags):
                self._drop(episode, dropped)
            call.flags = None
        if call.ends and not isinstance(error, InvalidInputError) and call.tries < _MOST_END_TRIES:
            call.tries += 1
            if not self._again:
                self._loop.call_later(_END_RETRY_S, self._send_again)
            self._again.append(call)
            return
        if call.ends:
            logger.warning("the end of episode %s is refused: it ends as truncated at its last complete step: %s", episode.id, error)
            self._core.reap(self._client, [episode.name])
            self._close(episode)
        self._settle(call, error)
        self._go_on(episode)

    def _send_again(self) -> None:
        calls, self._again = self._again, []
        self._send(calls)

    def _go_on(self, episode: EnvironmentEpisode) -> None:
        """Send what came while the episode's call was on its way."""
        episode.is_busy = False
        calls, episode.calls = episode.calls, []
        for call in calls:
            if self._is_next(call):
                self._loop.call_soon(self._send, [call])

    def _close(self, episode: EnvironmentEpisode) -> None:
        episode.has_ended = True
        self._environment.forget(episode)

    def _settle(self, call: EnvironmentCall, outcome: Any) -> None:
        self._unsettled.discard(call)
        call.settle(outcome)
        self._note_settled()

    def _note_settled(self) -> None:
        if self._when_settled is not None and not self._unsettled:
            when_settled, self._when_settled = self._when_settled, None
            when_settled()
