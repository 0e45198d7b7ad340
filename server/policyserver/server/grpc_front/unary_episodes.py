"""Episodes of callers without a stream: the server keeps what a stream's client keeps for itself, a `CallerEpisode`."""

from __future__ import annotations

import asyncio
import copy
import logging
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from policyserver.common.caller_episode import CallerEpisode
from policyserver.common.errors import (
    EpisodeDuplicateError,
    EpisodeUnknownError,
    InvalidInputError,
    PolicyServerError,
    SequenceError,
    WireError,
)
from policyserver.common.flags import StepFlag
from policyserver.common.rewards import to_reward
from policyserver.common.spaces import Array
from policyserver.common.tensors import to_tensor
from policyserver.server.episodes.core import EpisodeCore
from policyserver.server.episodes.episode_table import ServedClient
from policyserver.server.episodes.received_rows import PolicyWanted, ReceivedRows, Replies
from policyserver.server.episodes.row_checks import id_error
from policyserver.server.episodes.shares import connection_of
from policyserver.server.grpc_front import messages as wire
from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import tensor_pb2

logger = logging.getLogger(__name__)

_APPLIED_BEFORE = frozenset({"SEQUENCE_CONFLICT", "EPISODE_DUPLICATE"})  # refusals of a row whose number was applied, perhaps just now
_ENDED_REMEMBERED = 1024  # episodes whose end a caller who missed the answer may repeat


class _UnaryEpisode(CallerEpisode[bool]):
    """What the server keeps for one unary caller. Only whether a row is in flight matters: the core knows its content."""

    __slots__ = ("answered_reward", "calls", "client", "has_ended", "under_way", "used_s", "wanted")

    def __init__(self, client: ServedClient, training_enabled: bool, wanted: PolicyWanted, now_s: float) -> None:
        super().__init__(training_enabled)
        self.wanted = wanted
        self.client = client
        self.used_s = now_s
        """When its newest call began or, if that was later, the newest one that is over ended."""
        self.under_way = 0
        """Calls of a step whose callers wait, also for the learner: the episode is in use all the while."""
        self.calls = 0
        """Calls of the row in flight that the core has not answered: a caller may repeat one before its answer is there."""
        self.answered_reward = 0.0
        """The reward of the newest row that was answered, for a caller that repeats it."""
        self.has_ended = False


class UnaryEpisodes:
    """Translate unary calls to rows. Owned by the loop thread."""

    def __init__(self, core: EpisodeCore, limits: wire.MessageLimits, idle_timeout_s: float) -> None:
        self._core = core
        self._limits = limits
        self._idle_timeout_s = idle_timeout_s
        self._episodes: OrderedDict[tuple[str, str], _UnaryEpisode] = OrderedDict()
        """By caller and id, that which was used longest ago first."""
        self._announced = 0
        self._timer: asyncio.TimerHandle | None = None
        self._ended: OrderedDict[tuple[str, str], _UnaryEpisode] = OrderedDict()

    async def start(self, request: pb.StartEpisodeRequest, peer: str) -> pb.StartEpisodeResponse:
        """Start an episode; the core hears of it with its first observation."""
        if (refusal := self._core.drain_error) is not None:
            raise copy.copy(refusal)
        if error := id_error("client_id", request.client_id) or id_error("episode_id", request.episode_id):
            raise error
        episode_id = request.episode_id or uuid.uuid4().hex
        key, wanted = (request.client_id, episode_id), wire.wanted_policy(request.policy)
        known = self._episodes.get(key)
        if known is not None and (known.sequence > 0 or (known.training_enabled, known.wanted) != (not request.training_disabled, wanted)):
            raise EpisodeDuplicateError(f"Episode {episode_id} is already started")
        if known is not None:
            self._note_used(key, known)
        else:
            name = _client_name(request.client_id)
            if finished := self._core.finished_episode(name, episode_id):
                raise finished
            self._core.check_policy(wanted, episode_id)
            client = self._core.connect(name, connection_of(peer, name))
            if self._core.shares.room_of(client) <= self._announced:
                self._core.disconnect(client)
                raise self._core.shares.refusal(client)
            self._ended.pop(key, None)
            self._episodes[key] = _UnaryEpisode(client, not request.training_disabled, wanted, asyncio.get_running_loop().time())
            self._count_announced(client, 1)
            if self._timer is None:
                self._watch_idle()
        return pb.StartEpisodeResponse(episode_id=episode_id)

    async def get_action(self, request: pb.GetActionRequest) -> pb.GetActionResponse:
        """Ask the policy."""
        replies = await self._step(request, StepFlag.NO_WAIT if request.no_wait else StepFlag.NONE, [])
        return pb.GetActionResponse(
            action=[to_tensor(leaf[0]) for leaf in replies.actions],
            action_log_prob=float(replies.log_probs[0]),
            weights_seq_no=int(replies.weights_seq_nos[0]),
            stale=replies.is_stale,
        )

    async def log_action(self, request: pb.LogActionRequest) -> pb.LogActionResponse:
        """Record a given action."""
        await self._step(request, StepFlag.ACTION_GIVEN, request.action)
        return pb.LogActionResponse()

    async def log_returns(self, request: pb.LogReturnsRequest) -> pb.LogReturnsResponse:
        """Add to the reward of the newest action."""
        episode = self._episode(request)
        reward = to_reward(request.reward)
        wire.check_info(request.info_json, "info_json")
        info = wire.decode_info(request.info_json, "info_json") if request.info_json else {}
        if not episode.log(reward, self._core.waiting_infos.keep(info) if info else None):
            text = "reward: expected one after the first action, received one before it"
            raise InvalidInputError(text, reason="BAD_REWARD", field="reward")
        return pb.LogReturnsResponse()

    async def end(self, request: pb.EndEpisodeRequest) -> pb.EndEpisodeResponse:
        """End an episode."""
        await self._step(request, StepFlag.TRUNCATED if request.truncated else StepFlag.TERMINATED, [])
        key = request.client_id, request.episode_id
        if episode := self._episodes.pop(key, None):
            self._core.disconnect(episode.client)
            episode.has_ended = True
            self._ended[key] = episode
            if len(self._ended) > _ENDED_REMEMBERED:
                self._ended.popitem(last=False)
        return pb.EndEpisodeResponse()

    async def _step(self, request: Any, kind: StepFlag, action: Sequence[tensor_pb2.Tensor]) -> Replies:
        with self._in_use(request) as episode:
            return await self._step_of(episode, request, kind, action)

    async def _step_of(self, episode: _UnaryEpisode, request: Any, kind: StepFlag, action: Sequence[tensor_pb2.Tensor]) -> Replies:
        try:
            observation = wire.decode_tensors(request.observation, self._limits.observation_leaves, "observation")
            given = wire.decode_tensors(action, self._limits.action_leaves if kind & StepFlag.ACTION_GIVEN else 0, "action")
            number = self._number(request, episode, kind)
        except (PolicyServerError, WireError):
            self._core.statistics.rows_refused += 1
            raise
        rows = self._row(request.episode_id, episode, number, kind, observation, given)
        replies = await self._submit(episode, rows)
        if replies.waiting:  # its step is recorded: a caller that no longer waits may repeat it, or say what was done instead
            self._settle(episode, number, int(replies.handles[0]), is_answered=False)
        while replies.waiting:
            room = asyncio.Event()
            self._core.room.when_open(room.set)
            try:
                await room.wait()
            finally:
                self._core.room.forget(room.set)
            replies = await self._submit(episode, rows)
        if error := replies.error_of(0):
            if number == episode.sequence and not episode.calls and error.reason not in _APPLIED_BEFORE:
                self._core.statistics.rewards_dropped += episode.refused(int(rows.flags[0])) != 0.0
            raise _for_caller(error, request.episode_id, number)
        self._settle(episode, number, int(replies.handles[0]), is_answered=True)
        return replies

    @contextmanager
    def _in_use(self, request: Any) -> Iterator[_UnaryEpisode]:
        """Look the episode of a step's call up, which does not become idle before the call is over."""
        key = request.client_id, request.episode_id
        try:
            episode = self._ended.get(key) or self._episode(request)
        except PolicyServerError:
            self._core.statistics.rows_refused += 1
            raise
        episode.under_way += 1
        try:
            yield episode
        finally:
            episode.under_way -= 1
            if self._episodes.get(key) is episode:
                self._note_used(key, episode)

    def _number(self, request: Any, episode: _UnaryEpisode, kind: StepFlag) -> int:
        """Return the number of a call's row: the caller's, or the next one.

        Raises:
            SequenceError: it is not this number's turn.
        """
        repeats = episode.in_flight and episode.is_recorded and not kind & StepFlag.END
        number: int = request.sequence if request.HasField("sequence") else episode.sequence - bool(repeats)
        if not episode.has_ended and not 0 <= episode.sequence - number <= 1:
            text = f"sequence: expected {episode.sequence}, the episode's next number, received {number}"
            raise SequenceError(text, reason="SEQUENCE_GAP", field="sequence")
        return number

    @staticmethod
    def _row(
        episode_id: str, episode: _UnaryEpisode, number: int, kind: StepFlag, observation: list[Array], given: list[Array]
    ) -> ReceivedRows:
        """Make the row of a call: the next one, or the newest again, of which the core judges whether it is the same."""
        flags: int | None = None
        reward, info = episode.answered_reward, None
        if episode.in_flight and number == episode.newest:
            flags = episode.retake(int(kind), same_observation=True, same_action=kind == episode.sent_kind)
            reward, info = episode.sent_reward, episode.sent_info
        elif number == episode.sequence and not episode.has_ended:
            flags = episode.take(int(kind), True)
            reward, info = episode.sent_reward, episode.sent_info
        if flags is None:
            flags = int(kind) | (episode.start_flags if number == 0 else 0)
        return ReceivedRows(
            np.array([episode.handle if number else 0], np.uint64),
            np.array([number], np.uint32),
            np.array([flags], np.uint8),
            np.array([reward], np.float64),
            [leaf[None] for leaf in observation],
            [leaf[None] for leaf in given],
            [] if number else [episode_id],
            {0: info} if info else {},
            wants=[] if number else [episode.wanted],
        )

    async def _submit(self, episode: _UnaryEpisode, rows: ReceivedRows) -> Replies:
        episode.calls += 1
        try:
            return await self._core.submit(rows, episode.client)
        finally:
            episode.calls -= 1

    def _settle(self, episode: _UnaryEpisode, number: int, handle: int, *, is_answered: bool) -> None:
        """Take note that the row of a number was applied."""
        if number != episode.newest or not episode.in_flight:
            return  # another call of the same row came first
        if number == 0 and not episode.is_recorded:
            self._count_announced(episode.client, -1)
        if is_answered:
            episode.answered(handle)
            episode.answered_reward = episode.sent_reward
        else:
            episode.recorded(handle)

    def _episode(self, request: Any) -> _UnaryEpisode:
        key = request.client_id, request.episode_id
        episode = self._episodes.get(key)
        if episode is None:
            finished = self._core.finished_episode(_client_name(request.client_id), request.episode_id)
            raise finished or EpisodeUnknownError(f"Episode {request.episode_id} not found.", field="episode_id")
        self._note_used(key, episode)
        return episode

    def _note_used(self, key: tuple[str, str], episode: _UnaryEpisode) -> None:
        episode.used_s = asyncio.get_running_loop().time()
        self._episodes.move_to_end(key)

    def _count_announced(self, client: ServedClient, change: int) -> None:
        client.announced += change
        self._announced += change

    def _watch_idle(self) -> None:
        """End what was not used for too long and has no call under way, and look again when the next may be due."""
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._episodes:
            key, episode = next(iter(self._episodes.items()))
            due_s = episode.used_s + self._idle_timeout_s
            if due_s > loop.time():
                self._timer = loop.call_at(due_s, self._watch_idle)
                return
            if episode.under_way:  # a call that waits for the learner may take longer than callers may be silent
                self._note_used(key, episode)
            else:
                del self._episodes[key]
                self._reap(key[1], episode)

    def _reap(self, episode_id: str, episode: _UnaryEpisode) -> None:
        if episode.sequence == 0:
            self._count_announced(episode.client, -1)
        self._core.reap(episode.client, [episode_id])
        self._core.disconnect(episode.client)
        logger.info("episode %s of a unary caller ended as truncated after %g s without a call", episode_id, self._idle_timeout_s)


def _for_caller(error: PolicyServerError, episode_id: str, sequence: int) -> PolicyServerError:
    """Translate an error of the core's to the caller's request, which has no handles, and one step instead of columns."""
    if isinstance(error, EpisodeDuplicateError):
        text = f"sequence: number {sequence} was applied before with another content; repeat the same call, or send the next number"
        return SequenceError(text, reason="SEQUENCE_CONFLICT", field="sequence")
    if isinstance(error, EpisodeUnknownError):
        return EpisodeUnknownError(f"Episode {episode_id} not found.", field="episode_id")
    column, bracket, index = error.field.partition("[")
    error.field = f"{column.removesuffix('s')}{bracket}{index}"
    return error


def _client_name(client_id: str) -> str:
    return f"unary:{client_id}"
