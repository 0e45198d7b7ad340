"""Episodes of callers without a stream: the server keeps what a stream's client keeps for itself.

That is the next sequence number, and the reward and info that ride along with the next observation.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from policyserver.errors import EpisodeDuplicateError, EpisodeUnknownError, InvalidInputError
from policyserver.flags import StepFlag
from policyserver.tensors import from_tensor, to_tensor
from policyserver.v1 import policy_service_pb2 as pb

from ..episodes.core import EpisodeCore
from ..episodes.episode_table import Owner
from ..episodes.rows import Replies
from . import wire

logger = logging.getLogger(__name__)

_ENDED_REMEMBERED = 1024  # episodes whose end a caller who missed the answer may repeat


@dataclass(slots=True)
class _UnaryEpisode:
    owner: Owner
    training: bool
    used_s: float
    handle: int = 0
    next_sequence: int = 0
    reward: float = 0.0
    sent_reward: float = 0.0
    """The reward that went with the newest observation, for a caller that repeats it."""
    info: dict[str, Any] = field(default_factory=dict)


class UnaryEpisodes:
    """Translate unary calls to rows. Owned by the loop thread."""

    def __init__(self, core: EpisodeCore, idle_timeout_s: float) -> None:
        self._core = core
        self._idle_timeout_s = idle_timeout_s
        self._episodes: dict[tuple[str, str], _UnaryEpisode] = {}
        self._ended: OrderedDict[tuple[str, str], _UnaryEpisode] = OrderedDict()

    async def start(self, request: pb.StartEpisodeRequest) -> pb.StartEpisodeResponse:
        """Start an episode; the core hears of it with its first observation."""
        if (refusal := self._core.starts_nothing) is not None:
            raise copy.copy(refusal)
        episode_id = request.episode_id or uuid.uuid4().hex
        key = request.client_id, episode_id
        known = self._episodes.get(key)
        if known is not None and (known.next_sequence > 0 or known.training == request.training_disabled):
            raise EpisodeDuplicateError(f"Episode {episode_id} is already started")
        if known is None:
            if finished := self._core.finished_episode(_owner_name(request.client_id), episode_id):
                raise finished
            self._ended.pop(key, None)
            loop = asyncio.get_running_loop()
            owner = self._core.connect(_owner_name(request.client_id))
            self._episodes[key] = _UnaryEpisode(owner, not request.training_disabled, loop.time())
            loop.call_later(self._idle_timeout_s, self._reap_if_idle, key)
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
        action = [from_tensor(tensor, f"action[{index}]") for index, tensor in enumerate(request.action)]
        await self._step(request, StepFlag.ACTION_GIVEN, action)
        return pb.LogActionResponse()

    async def log_returns(self, request: pb.LogReturnsRequest) -> pb.LogReturnsResponse:
        """Add to the reward of the newest action."""
        episode = self._episode(request)
        if not math.isfinite(request.reward):
            raise InvalidInputError(f"reward: expected a finite number, received {request.reward}", reason="BAD_REWARD", field="reward")
        if episode.next_sequence == 0:
            raise InvalidInputError(
                "reward: expected one after the first action, received one before it", reason="BAD_REWARD", field="reward"
            )
        info = wire.decode_info(request.info_json, "info_json") if request.info_json else {}
        episode.reward += request.reward
        episode.info = info or episode.info
        return pb.LogReturnsResponse()

    async def end(self, request: pb.EndEpisodeRequest) -> pb.EndEpisodeResponse:
        """End an episode."""
        await self._step(request, StepFlag.TRUNCATED if request.truncated else StepFlag.TERMINATED, [])
        key = request.client_id, request.episode_id
        if episode := self._episodes.pop(key, None):
            self._core.disconnect(episode.owner)
            self._ended[key] = episode
            if len(self._ended) > _ENDED_REMEMBERED:
                self._ended.popitem(last=False)
        return pb.EndEpisodeResponse()

    async def _step(self, request: Any, flags: StepFlag, action: list[Any]) -> Replies:
        episode = self._ended.get((request.client_id, request.episode_id)) or self._episode(request)
        sequence = request.sequence if request.HasField("sequence") else episode.next_sequence
        is_repeat = sequence == episode.next_sequence - 1
        if sequence == 0:
            flags |= StepFlag.START | (StepFlag.NONE if episode.training else StepFlag.TRAINING_DISABLED)
        reward = episode.sent_reward if is_repeat else episode.reward
        observation = [from_tensor(tensor, f"observation[{index}]") for index, tensor in enumerate(request.observation)]
        rows = wire.one_row(0 if sequence == 0 else episode.handle, sequence, flags, reward, observation, action)
        if sequence == 0:
            rows.episode_ids.append(request.episode_id)
        if episode.info and not is_repeat:
            rows.infos[0] = episode.info
        replies = await self._core.submit(rows, episode.owner)
        while replies.waiting:
            room = asyncio.Event()
            self._core.room.when_open(room.set)
            try:
                await room.wait()
            finally:
                self._core.room.forget(room.set)
            replies = await self._core.submit(rows, episode.owner)
        if error := replies.refusals.get(0):
            raise error
        episode.handle = int(replies.handles[0])
        if sequence == episode.next_sequence:
            episode.next_sequence += 1
            episode.sent_reward, episode.reward = reward, episode.reward - reward
            episode.info = {}
        return replies

    def _episode(self, request: Any) -> _UnaryEpisode:
        episode = self._episodes.get((request.client_id, request.episode_id))
        if episode is None:
            finished = self._core.finished_episode(_owner_name(request.client_id), request.episode_id)
            raise finished or EpisodeUnknownError(f"Episode {request.episode_id} not found.", field="episode_id")
        episode.used_s = asyncio.get_running_loop().time()
        return episode

    def _reap_if_idle(self, key: tuple[str, str]) -> None:
        episode = self._episodes.get(key)
        if episode is None:
            return
        loop = asyncio.get_running_loop()
        remaining_s = episode.used_s + self._idle_timeout_s - loop.time()
        if remaining_s > 0:
            loop.call_later(remaining_s, self._reap_if_idle, key)
            return
        del self._episodes[key]
        self._core.reap(episode.owner, [key[1]])
        self._core.disconnect(episode.owner)
        logger.info("episode %s of a unary caller ended as truncated after %g s without a call", key[1], self._idle_timeout_s)


def _owner_name(client_id: str) -> str:
    return f"unary:{client_id}"
