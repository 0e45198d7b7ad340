"""Episodes, and their steps as rows: checked, sent, and sent again unchanged, until they are answered."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from policyserver.common.caller_episode import CallerEpisode
from policyserver.common.errors import InvalidInputError, PolicyServerError


def count(episode_ids: Sequence[str]) -> int:
    """Count ids.

    Raises:
        InvalidInputError: one comes twice.
    """
    if len(set(episode_ids)) != len(episode_ids):
        raise InvalidInputError("episode_ids: expected different ones, received one of them twice", field="episode_ids")
    return len(episode_ids)


def encoded_info(info: Mapping[str, Any], room_bytes: int) -> str:
    """Encode an info so that it fits into a message beside its observation.

    Raises:
        InvalidInputError: JSON can't hold it, or it takes more than `room_bytes`.
    """
    try:
        text = json.dumps(dict(info), allow_nan=False, default=plain)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"info: expected what JSON can hold, received {type(info).__name__}: {error}", field="info") from error
    if len(text) > room_bytes:
        raise InvalidInputError(f"info: expected at most {room_bytes} bytes of JSON, received {len(text)}", field="info")
    return text


def plain(value: Any) -> Any:
    """Turn numpy's scalars and arrays into what JSON knows."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


MAX_EPISODE_ID_BYTES = 256

NO_INFO = ("",)
"""The infos of a single row that has none."""

ROW_OVERHEAD_BYTES = (8 + 4 + 1 + 8) + MAX_EPISODE_ID_BYTES + 2 * 16
"""Most that a row takes beside its observation, action and info, bytes: fixed columns, id, and what protobuf adds to id and info."""


class Home(Protocol):
    """A connection, as far as episodes and the calls that go through it know it. Guarded by the client's lock."""

    episodes_open: int
    """Open episodes of this client that are there."""
    callers_waking: int
    """Callers that were answered there and are about to go on."""

    def release(self) -> None:
        """Take note that an episode is there no more."""


class ClientEpisode(CallerEpisode["tuple[OutgoingRows, int]"]):
    """The client's side of one open episode. Guarded by the client's lock.

    In flight is the row that went out without an answer: the columns, and its place in them. Infos are JSON.
    """

    __slots__ = ("busy", "connection", "greedy", "id", "policy")

    def __init__(self, episode_id: str, training_enabled: bool, policy: str = "", *, greedy: bool = False) -> None:
        super().__init__(training_enabled)
        self.id = episode_id
        self.policy = policy
        """Name of the policy that it wants; empty: it names none."""
        self.greedy = greedy
        """Whether it wants the most likely actions."""
        self.connection: Home | None = None
        """Leads to the runner that has it, for good from its first row on; None before."""
        self.busy = 0
        """The thread (threading.get_ident) that waits for an answer to this episode's row; 0 if none does."""


class Steps(NamedTuple):
    """The next steps of n different episodes, as their caller gives them."""

    ids: Sequence[str]
    kinds: Sequence[int]
    """Bits of ACTION_GIVEN, TERMINATED and TRUNCATED."""
    observations: tuple[bytes, ...]
    """One column of n values per leaf of the observation space."""
    actions: tuple[bytes, ...] = ()
    """The same of the action space, or nothing."""
    errors: Mapping[int, PolicyServerError] = MappingProxyType({})
    """Why steps can't go out, by index."""


@dataclass(slots=True)  # never changed; not declared frozen, for that would triple the cost of making one
class OutgoingRows:
    """Steps of n different episodes as columns. Either all of them bring an action or none does."""

    indices: Sequence[int]
    """Where each row stands in its call."""
    episodes: Sequence[ClientEpisode]
    """The episode of each row."""
    sequences: Sequence[int]
    """The number of each row in its episode."""
    flags: Sequence[int]
    """Bits of StepFlag."""
    rewards: Sequence[float]
    """The rewards that ride along."""
    infos: Sequence[str]
    """JSON objects; empty where a row has no info."""
    observations: tuple[bytes, ...]
    """One column of n values per leaf of the observation space."""
    actions: tuple[bytes, ...]
    """The same of the action space, or nothing."""

    def __len__(self) -> int:
        return len(self.episodes)

    def select(self, rows: Sequence[int]) -> OutgoingRows:
        """Take some of the rows, in the order given."""
        return OutgoingRows(
            [self.indices[row] for row in rows],
            [self.episodes[row] for row in rows],
            [self.sequences[row] for row in rows],
            [self.flags[row] for row in rows],
            [self.rewards[row] for row in rows],
            [self.infos[row] for row in rows],
            select(self.observations, rows, len(self)),
            select(self.actions, rows, len(self)),
        )

    def with_flags(self, flags: int) -> OutgoingRows:
        """Return the same rows with further bits of StepFlag."""
        return dataclasses.replace(self, flags=bytes(before | flags for before in self.flags))

    def size_bytes(self, row_bytes: int) -> int:
        """Bound from above what the rows add to a message, of which each takes at most `row_bytes` beside its info."""
        size = len(self.episodes) * row_bytes
        return size if self.infos is NO_INFO else size + sum(map(len, self.infos))

    def split(self, max_rows: int, max_bytes: int, row_bytes: int) -> Iterator[OutgoingRows]:
        """Cut into pieces that fit into a message each."""
        if len(self) == 1 or (len(self) <= max_rows and self.size_bytes(row_bytes) <= max_bytes):
            yield self
            return
        largest = row_bytes + max(map(len, self.infos))
        step = max(1, min(max_rows, max_bytes // largest))
        for first in range(0, len(self), step):
            yield self.select(range(first, min(first + step, len(self))))


def select(columns: tuple[bytes, ...], rows: Sequence[int], total: int) -> tuple[bytes, ...]:
    """Take some rows of columns that have `total` rows."""
    picked = []
    for column in columns:
        width = len(column) // total
        picked.append(b"".join([column[row * width : (row + 1) * width] for row in rows]))
    return tuple(picked)
