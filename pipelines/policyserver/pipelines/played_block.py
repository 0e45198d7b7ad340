"""A block of episodes that is being played: the market's arrays, what is known of each row, and what is pending between two bars.

A played block is a baton: whichever node holds an event with it owns it, and no other touches it. So no block needs a lock, however many
threads there are.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.block import EpisodeBlock
from policyserver.pipelines.market.episode_source import Episode, EpisodeSource
from policyserver.pipelines.market.feed import BarFeed
from policyserver.pipelines.market.forecaster import Forecaster
from policyserver.pipelines.market.frames import FrameSums
from policyserver.pipelines.market.schemes.scheme import View
from policyserver.pipelines.market.vector_env import begin_episodes
from policyserver.pipelines.replay.turn import Turn
from policyserver.pipelines.taken_actions import TakenActions

_ROWS_OF_A_BLOCK = 1024
"""Rows that each block has at least, where there are several. Nodes share Python's lock, so a second block saves the wait for actions
alone, and a bar of a block costs as much as some 100 of its rows: up to so many rows one block is faster (benchmarks/speed/findings.md)."""

_MOST_BLOCKS = 4
"""Blocks of a run."""

SUMS = ("reward", "fee", "slippage")
"""What is summed over the bars of an action."""

Observations = npt.NDArray[np.float32]


@dataclass(slots=True)
class FallbackStep:
    """A step that was taken without the server."""

    observation: Observations
    """What the action was taken on, float32 (size,)."""
    action: Any
    """What it is reported as."""
    reward: float | None = None
    """Its reward, once known."""


def shares_of(concurrent: int, blocks: int | None = None) -> list[int]:
    """Return how many episodes each block of a run has, the first block first: sizes differ by 1 at most.

    Args:
        concurrent: Episodes at a time.
        blocks: How many blocks, at most one for each episode; None: one, and up to four where each has 1,024 episodes.
    """
    count = min(concurrent, blocks) if blocks is not None else min(_MOST_BLOCKS, max(1, concurrent // _ROWS_OF_A_BLOCK))
    bounds = [place * concurrent // count for place in range(count + 1)]
    return [last - first for first, last in itertools.pairwise(bounds)]


class PlayedBlock:
    """Rows that are stepped together. A row is vacant, or plays an episode; an episode is new until its first action."""

    def __init__(
        self, number: int, first_slot: int, block: EpisodeBlock, forecaster: Forecaster, begins: IntArray, count: int | None = None
    ) -> None:
        """Begin with vacant rows.

        Args:
            number: Which block of the run it is; decides which replica of a node serves it.
            first_slot: Slot, among all concurrent episodes, of its first row.
            block: The market's arrays.
            forecaster: Of its rows.
            begins: Episodes that the slot of each row has played before, int64 (n,).
            count: Episodes of all slots from there on; None: any number.
        """
        n_rows = block.shape.n_rows
        self.number = number
        self.first_slot = first_slot
        self.block = block
        self.forecaster = forecaster
        self.feed = BarFeed(n_rows, block.shape.n_symbols, len(block.shape.columns))
        self.rounds = begins.copy()
        """Number of the next episode of each row among those of its slot."""
        self._begins, self._count = begins, count
        self.episodes: list[Episode | None] = [None] * n_rows
        """What each row plays; None: it is vacant."""
        self._plays = np.zeros(n_rows, dtype=np.bool_)
        self.playing: IntArray = np.arange(0)
        """Rows that play an episode, increasing. Not to be changed, as `vacant`."""
        self.vacant: IntArray = np.arange(n_rows)
        """Rows that play nothing, increasing."""
        self.ids: list[str] = [""] * n_rows
        """Names of the episodes."""
        self.symbols: list[str] = [""] * n_rows
        """What they trade."""
        self.asks = np.ones(n_rows, dtype=np.bool_)
        """Whether the policy is asked at the close of the last bar; else its action goes on."""
        self.has_frames = False
        """Whether there are bars at which it is not asked."""
        self.sums = FrameSums(n_rows, len(SUMS))
        """What the newest actions have been worth so far, in the columns `SUMS`."""
        self.is_new = np.zeros(n_rows, dtype=np.bool_)
        """Whose first action is still to be taken: it has no bar to wait for."""
        self.has_new = False
        """Whether there may be such a row, or one of which the server has not seen an observation."""
        self.is_known = np.zeros(n_rows, dtype=np.bool_)
        """Of which the client has heard."""
        self.is_started = np.zeros(n_rows, dtype=np.bool_)
        """Of which the server has seen the first observation."""
        self.unreported: dict[int, list[FallbackStep]] = {}
        """Fallback steps of each row that the server has not heard of, the oldest first."""
        self.observations: Observations = np.zeros((n_rows, block.observation_size), dtype=np.float32)
        """Observations at the last bar."""
        self.steps = np.zeros(n_rows, dtype=np.int64)
        """Rewards so far."""
        self.returns = np.zeros(n_rows)
        """Sums of the rewards so far."""
        self.taken = TakenActions(n_rows)
        """What has been done in each episode, fallbacks as they are reported."""
        self.decision = Decision(n_rows)
        """Newest decisions; their rewards come with the next bar."""
        self.turn = Turn(number)
        """What has happened since the block was last with Market."""
        self.abandoned = False
        """Whether a failed node held it: events that still carry it are void."""

    @property
    def waiting(self) -> IntArray:
        """Rows that wait for a bar, increasing."""
        playing = self.playing
        return playing[~self.is_new[playing]] if self.has_new else playing

    def is_over(self, concurrent: int) -> bool:
        """Return whether no row plays an episode, and none has another one to begin; see `begin`."""
        return self._count is not None and not len(self.playing) and not len(self._to_begin(concurrent))

    def _to_begin(self, concurrent: int) -> IntArray:
        """Return the vacant rows that have an episode to begin."""
        rows = self.vacant
        if self._count is None:
            return rows
        played = (self.rounds[rows] - self._begins[rows]) * concurrent + self.first_slot + rows
        return rows[played < self._count]

    def begin(self, source: EpisodeSource, concurrent: int) -> list[Episode]:
        """Begin the next episode of each vacant row, and return them: episode n is played in slot n modulo `concurrent`."""
        rows = self.vacant
        if len(rows):
            rows = self._to_begin(concurrent)
        if not len(rows):
            return []
        numbers = self.rounds[rows] * concurrent + self.first_slot + rows
        self.rounds[rows] += 1
        self.turn.begun = rows, numbers
        episodes = source.episodes(numbers.tolist())
        begin_episodes(self.block, self.feed, rows, episodes)
        self.forecaster.begin(rows, episodes)
        for row, episode in zip(rows.tolist(), episodes, strict=True):
            self.episodes[row] = episode
            self.ids[row] = episode.id
            self.symbols[row] = episode.traded
        self._set_plays(rows, True)
        self.is_new[rows] = self.asks[rows] = self.has_new = True
        self.sums.begin(rows)
        self.is_known[rows] = self.is_started[rows] = False
        self.taken.begin(rows)
        self.steps[rows] = 0
        self.returns[rows] = 0.0
        return episodes

    def take_observations(self, rows: IntArray, observations: Observations) -> Observations:
        """Keep the observations of rows, float32 (m, size), and return them; neither they nor those that were returned before change."""
        if len(rows) == len(self.observations):
            self.observations = observations
        else:
            self.observations = self.observations.copy()
            self.observations[rows] = observations
        return observations

    def vacate(self, rows: IntArray) -> None:
        """Let the episodes of rows go."""
        for row in rows.tolist():
            self.episodes[row] = None
            self.unreported.pop(row, None)
        self.is_new[rows] = False
        self._set_plays(rows, False)

    def _set_plays(self, rows: IntArray, plays: bool) -> None:
        self._plays[rows] = plays
        self.playing, self.vacant = np.flatnonzero(self._plays), np.flatnonzero(~self._plays)

    def ids_of(self, rows: IntArray) -> list[str]:
        """Return the names of the episodes in rows, which increase."""
        return _of(self.ids, rows)

    def symbols_of(self, rows: IntArray) -> list[str]:
        """Return what rows trade, which increase."""
        return _of(self.symbols, rows)


def _of(names: list[str], rows: IntArray) -> list[str]:
    """Return the names of rows, which increase."""
    return names.copy() if len(rows) == len(names) else [names[row] for row in rows.tolist()]


class Decision:
    """The newest decision of each row, and how it came about. Its arrays are replaced by others, and never changed."""

    def __init__(self, n_rows: int) -> None:
        """Have none."""
        self.bar: IntArray = np.zeros(n_rows, dtype=np.int64)
        """Bar at whose close it was taken."""
        self.time_ns: IntArray = np.zeros(n_rows, dtype=np.int64)
        """End of that bar, nanoseconds since 1970."""
        self.price: FloatArray = np.zeros(n_rows)
        """Close of that bar, of the first symbol."""
        self.prediction: FloatArray = np.zeros((n_rows, 3))
        """Forecast of the next log-return, of the first symbol, as in a `View`."""
        self.action: npt.NDArray[Any] = np.zeros(n_rows, dtype=np.int64)
        """What was done; of a fallback what it is reported as."""
        self.fallback: npt.NDArray[np.bool_] = np.zeros(n_rows, dtype=np.bool_)
        """Whether it is the configured fallback instead of the policy's action."""
        self.weights_seq_no: IntArray = np.zeros(n_rows, dtype=np.int64)
        """Policy version that acted, or the newest known one."""
        self.node = ""
        """Name of the node thread that took it."""

    def take(
        self,
        rows: IntArray,
        view: View,
        actions: npt.NDArray[Any],
        fallback: npt.NDArray[np.bool_],
        weights_seq_no: IntArray,
        node: str,
    ) -> None:
        """Keep the decisions of rows at the bar that `view` is at: what was done, (m, ...), how, and who took them."""
        self.bar = _put(self.bar, rows, view.clock)
        self.time_ns = _put(self.time_ns, rows, view.bar.time_ns)
        self.price = _put(self.price, rows, view.accounts.price[:, 0])
        self.prediction = _put(self.prediction, rows, view.forecast[:, 0])
        if len(rows) == len(self.action):
            self.action, self.fallback, self.weights_seq_no = actions, fallback, weights_seq_no
        else:
            if self.action.shape[1:] != actions.shape[1:] or self.action.dtype != actions.dtype:
                self.action = np.zeros((len(self.action), *actions.shape[1:]), dtype=actions.dtype)
            self.action, self.fallback, self.weights_seq_no = self.action.copy(), self.fallback.copy(), self.weights_seq_no.copy()
            self.action[rows], self.fallback[rows], self.weights_seq_no[rows] = actions, fallback, weights_seq_no
        self.node = node


def _put(old: npt.NDArray[Any], rows: IntArray, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a new array with the values of rows, and with the old ones of the others."""
    if len(rows) == len(old):
        return values.copy()
    new = old.copy()
    new[rows] = values[rows]
    return new
