"""Episodes of callers without a stream: the server keeps what a stream's client keeps for itself.

That is the next sequence number, and the reward and info that ride along with the next observation.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from policyserver.common.errors import (
    EpisodeDuplicateError,
    EpisodeUnknownError,
    InvalidInputError,
    PolicyServerError,
    SequenceError,
    WireError,
)
from policyserver.common.flags import StepFlag
from policyserver.common.rewards import add_reward, to_reward
from policyserver.common.tensors import to_tensor
from policyserver.server.episodes.core import EpisodeCore
from policyserver.server.episodes.episode_table import ClientSession
from policyserver.server.episodes.ids import id_error
from policyserver.server.episodes.received_rows import ReceivedRows, Replies
from policyserver.server.episodes.shares import connection_of
from policyserver.server.grpc_front import messages as wire
from policyserver.server.grpc_front.infos import check_info
from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import tensor_pb2

logger = logging.getLogger(__name__)

_ENDED_REMEMBERED = 1024  # episodes whose end a caller who missed the answer may repeat


@dataclass(slots=True)
class _UnaryEpisode:
    owner: ClientSession
    training: bool
    used_s: float
    handle: int = 0
    next_sequence: int = 0
    reward: float = 0.0
    sent_reward: float = 0.0
    """The reward that went with the newest observation, for a caller that repeats it."""
    info: dict[str, Any] = field(default_factory=dict)
    is_unheard: bool = False
    """Whether the newest observation's answer still waits for the learner, or its caller waited for it no longer."""


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
        key = request.client_id, episode_id
        known = self._episodes.get(key)
        if known is not None and (known.next_sequence > 0 or known.training == request.training_disabled):
            raise EpisodeDuplicateError(f"Episode {episode_id} is already started")
        if known is None:
            if finished := self._core.finished_episode(_owner_name(request.client_id), episode_id):
                raise finished
            name = _owner_name(request.client_id)
            owner = self._core.connect(name, connection_of(peer, name))
            if self._core.shares.room_of(owner) <= self._announced:
                self._core.disconnect(owner)
                raise self._core.shares.refusal(owner)
            self._ended.pop(key, None)
            self._episodes[key] = _UnaryEpisode(owner, not request.training_disabled, asyncio.get_running_loop().time())
            self._count_announced(owner, 1)
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
        )

    async def log_action(self, request: pb.LogActionRequest) -> pb.LogActionResponse:
        """Record a given action."""
        await self._step(request, StepFlag.ACTION_GIVEN, request.action)
        return pb.LogActionResponse()

    async def log_returns(self, request: pb.LogReturnsRequest) -> pb.LogReturnsResponse:
        """Add to the reward of the newest action."""
        episode = self._episode(request)
        reward = to_reward(request.reward)
        if episode.next_sequence == 0:
            raise InvalidInputError(
                "reward: expected one after the first action, received one before it", reason="BAD_REWARD", field="reward"
            )
        check_info(request.info_json, "info_json")
        info = wire.decode_info(request.info_json, "info_json") if request.info_json else {}
        episode.reward = add_reward(episode.reward, reward)
        episode.info = (self._core.waiting_infos.keep(info) if info else None) or episode.info
        return pb.LogReturnsResponse()

    async def end(self, request: pb.EndEpisodeRequest) -> pb.EndEpisodeResponse:
        """End an episode."""
        await self._step(request, StepFlag.TRUNCATED if request.truncated else StepFlag.TERMINATED, [])
        key = request.client_id, request.episode_id
        if episode := self._episodes.pop(key, None):
            self._core.disconnect(episode.owner)
            self._ended[key] = episode
            episode.info = {}
            if len(self._ended) > _ENDED_REMEMBERED:
                self._ended.popitem(last=False)
        return pb.EndEpisodeResponse()

    async def _step(self, request: Any, flags: StepFlag, action: Sequence[tensor_pb2.Tensor]) -> Replies:
        try:
            episode = self._ended.get((request.client_id, request.episode_id)) or self._episode(request)
            answers_unheard = episode.is_unheard and not flags & StepFlag.END
            sequence = request.sequence if request.HasField("sequence") else episode.next_sequence - answers_unheard
            if sequence == episode.next_sequence - 1 and flags & StepFlag.ACTION_GIVEN and answers_unheard:
                flags |= StepFlag.OVERRIDE
            rows = self._rows(request, episode, sequence, flags, action)
        except (PolicyServerError, WireError):
            self._core.statistics.rows_refused += 1
            raise
        replies = await self._core.submit(rows, episode.owner)
        if replies.waiting:  # its step is recorded: whoever waits no longer for the action may repeat it, or say what was done instead
            self._book(episode, sequence, rows, replies)
            episode.is_unheard = True
        while replies.waiting:
            room = asyncio.Event()
            self._core.room.when_open(room.set)
            try:
                await room.wait()
            finally:
                self._core.room.forget(room.set)
            replies = await self._core.submit(rows, episode.owner)
        if error := replies.error_of(0):
            raise _for_caller(error, request.episode_id, sequence)
        self._book(episode, sequence, rows, replies)
        episode.is_unheard = False
        return replies

    def _book(self, episode: _UnaryEpisode, sequence: int, rows: ReceivedRows, replies: Replies) -> None:
        """Take note that a row was applied."""
        episode.handle = int(replies.handles[0])
        if sequence == episode.next_sequence:
            if sequence == 0:
                self._count_announced(episode.owner, -1)
            episode.next_sequence += 1
            episode.sent_reward, episode.reward = rows.rewards[0], episode.reward - rows.rewards[0]
            episode.info = {}

    def _rows(
        self, request: Any, episode: _UnaryEpisode, sequence: int, flags: StepFlag, action: Sequence[tensor_pb2.Tensor]
    ) -> ReceivedRows:
        """Make the row of a call.

        Raises:
            SequenceError: It is not this number's turn.
            WireError: A tensor is inconsistent, or there are too many.
        """
        if (request.client_id, request.episode_id) in self._episodes and not 0 <= episode.next_sequence - sequence <= 1:
            text = f"sequence: expected {episode.next_sequence}, the episode's next number, received {sequence}"
            raise SequenceError(text, reason="SEQUENCE_GAP", field="sequence")
        is_repeat = sequence == episode.next_sequence - 1
        if sequence == 0:
            flags |= StepFlag.START | (StepFlag.NONE if episode.training else StepFlag.TRAINING_DISABLED)
        reward = episode.sent_reward if is_repeat else episode.reward
        observation = wire.decode_tensors(request.observation, self._limits.observation_leaves, "observation")
        given = wire.decode_tensors(action, self._limits.action_leaves if flags & StepFlag.ACTION_GIVEN else 0, "action")
        rows = wire.one_row(0 if sequence == 0 else episode.handle, sequence, flags, reward, observation, given)
        if sequence == 0:
            rows.episode_ids.append(request.episode_id)
        if episode.info and not is_repeat:
            rows.infos[0] = episode.info
        return rows

    def _episode(self, request: Any) -> _UnaryEpisode:
        episode = self._episodes.get((request.client_id, request.episode_id))
        if episode is None:
            finished = self._core.finished_episode(_owner_name(request.client_id), request.episode_id)
            raise finished or EpisodeUnknownError(f"Episode {request.episode_id} not found.", field="episode_id")
        episode.used_s = asyncio.get_running_loop().time()
        self._episodes.move_to_end((request.client_id, request.episode_id))
        return episode

    def _count_announced(self, owner: ClientSession, change: int) -> None:
        owner.announced += change
        self._announced += change

    def _watch_idle(self) -> None:
        """End what was not used for too long, and look again when the next may be due."""
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._episodes:
            key, episode = next(iter(self._episodes.items()))
            due_s = episode.used_s + self._idle_timeout_s
            if due_s > loop.time():
                self._timer = loop.call_at(due_s, self._watch_idle)
                return
            del self._episodes[key]
            self._reap(key[1], episode)

    def _reap(self, episode_id: str, episode: _UnaryEpisode) -> None:
        if episode.next_sequence == 0:
            self._count_announced(episode.owner, -1)
        self._core.reap(episode.owner, [episode_id])
        self._core.disconnect(episode.owner)
        logger.info("episode %s of a unary caller ended as truncated after %g s without a call", episode_id, self._idle_timeout_s)


def _for_caller(error: PolicyServerError, episode_id: str, sequence: int) -> PolicyServerError:
    """Say an error of the core's in the words of the caller's request, which knows no handles, and one step instead of columns."""
    if isinstance(error, EpisodeDuplicateError):
        text = f"sequence: number {sequence} was applied before with another content; repeat the same call, or send the next number"
        return SequenceError(text, reason="SEQUENCE_CONFLICT", field="sequence")
    if isinstance(error, EpisodeUnknownError):
        return EpisodeUnknownError(f"Episode {episode_id} not found.", field="episode_id")
    column, bracket, index = error.field.partition("[")
    error.field = f"{column.removesuffix('s')}{bracket}{index}"
    return error


def _owner_name(client_id: str) -> str:
    return f"unary:{client_id}"
