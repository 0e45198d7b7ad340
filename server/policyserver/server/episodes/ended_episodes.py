"""Episodes that ended, until the daemon asks for them to record them."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from policyserver.common.spaces import Array
from policyserver.server.episodes.episode_table import EpisodeTable

MOST_WAITING = 10_000
"""Ended episodes that wait to be recorded. With the longest ids, of 256 bytes, they take some 10 MB."""


_LENGTH = 1
"""Place of the length among an episode's columns."""


class EndedEpisode(NamedTuple):
    """One episode that ended, as it is recorded."""

    client: str
    """Way in and the client's own id."""
    records_in: tuple[str, ...]
    """Where its client records it."""
    episode: str
    ended: str
    decided_by: str
    """Name of the policy."""
    return_: float
    length: int
    """Its complete steps."""
    seconds: float
    weights_seq_no: int
    """Policy version of its last action."""
    trained: bool
    """Whether the learner gets its steps, the last ones too."""
    given: int
    """Actions that its client chose itself."""
    overridden: int
    """Times that it chose another action than the one that it was answered."""
    greedy: bool
    """Whether it asked for the most likely actions."""


class EndedEpisodes:
    """Keep the newest ended episodes. Owned by the loop thread.

    Overflow policy: the oldest are dropped and counted. That is what happens where no daemon asks.
    """

    def __init__(self, table: EpisodeTable) -> None:
        self._table = table
        self._waiting: deque[EndedEpisode] = deque(maxlen=MOST_WAITING)
        self._noted = self._taken = 0
        self.is_paused = False
        """Whether learning is paused, so that the last steps of an episode that ends now are let go."""

    def note(self, slots: npt.NDArray[np.int64], endings: list[str], now_s: float) -> None:
        """Note episodes that are about to be closed, with how each ended; one without a complete step leaves no trace."""
        table = self._table
        columns: list[Array] = [  # in the order of EndedEpisode
            table.returns[slots],
            table.next_sequence[slots] - 1,
            now_s - table.started_s[slots],
            table.weights_seq_nos[slots],
            table.training[slots] & (not self.is_paused),
            table.given[slots],
            table.overridden[slots],
            table.greedy[slots],
        ]
        for slot, ending, *values in zip(slots.tolist(), endings, *(column.tolist() for column in columns), strict=True):
            if values[_LENGTH] > 0:
                client, episode = table.owner(slot)
                self._waiting.append(EndedEpisode(client.client_id, client.records_in, episode, ending, table.policy_name(slot), *values))
                self._noted += 1

    @property
    def waiting(self) -> int:
        """Episodes noted since the last `take`."""
        return self._noted - self._taken

    def take(self) -> tuple[list[EndedEpisode], int]:
        """Return the episodes since the last call, and how many are missing among them."""
        taken = list(self._waiting)
        self._waiting.clear()
        missing = self._noted - self._taken - len(taken)
        self._taken = self._noted
        return taken, missing
