"""A run of a pipeline without a server, by random actions that are the same in every run, and all that it did.

played = play(config, prices_of(config), episodes=range(64))
played.observations[7]      # what episode 7 observed, float32 (steps + 1, size)
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from policyserver.monitoring.points import Points
from policyserver.monitoring.sink import MultiSink
from policyserver.pipelines.baselines import random_actions
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.pipeline import Pipeline, reach_of
from policyserver.pipelines.played_block import Observations
from policyserver.pipelines.prices import PriceSource, make_source
from policyserver.pipelines.prices.change import PriceChange
from policyserver.pipelines.replay.turn import Turn

Wanted = Callable[[Episode], int]
"""How many observations of an episode are wanted, at most `n_steps + 1`; 0: it need not be played."""

_KNOWN_WHEN_ACTING = ("price", "prediction", "prediction_std", "action")
"""Columns of a step that are known at the bar of its action; the others come with the next bar."""


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A column of what was recorded of one kind in one episode, in the order in which it was."""

    bar: IntArray
    """Bar at which each value was known, int64 (n,); 0 is that of the first action."""
    values: FloatArray
    """The values, float64 (n,)."""


@dataclass(slots=True)
class Course:
    """When an episode was played."""

    began: int
    """Turn of its block, from 0, in which it stood at the bar of its first action."""
    bars: int = 0
    """Bars that it was played from there on, one in each turn; fewer than it has where it ended before, or the run did."""


@dataclass(slots=True, eq=False)
class Played:
    """What a run did. A number stands for an episode."""

    episodes: dict[int, Episode] = field(default_factory=dict)
    """The episodes, also those that were begun for others' sake."""
    observations: dict[int, Observations] = field(default_factory=dict)
    """What they observed at each bar, the last one's too if it was played, float32 (bars, size); of others than those asked for, as far
    as they came before the run ended."""
    actions: dict[int, npt.NDArray[Any]] = field(default_factory=dict)
    """What they were to do, (n_steps, ...)."""
    recorded: dict[int, dict[str, Recorded]] = field(default_factory=dict)
    """What was recorded of them, by "order.fill_price" and so on."""
    courses: dict[int, Course] = field(default_factory=dict)
    """When they were played."""

    def name(self, number: int) -> str:
        """Return the name of an episode."""
        return self.episodes[number].id

    def bars_of(self, number: int) -> IntArray:
        """Return the bar of each observation of an episode, int64 (n,), 0 that of the first action; the last may be that of its end."""
        return _bars_of(self.episodes[number], self.courses[number])[: len(self.observations[number])]


def prices_of(config: PipelineConfig, change: PriceChange | None = None) -> PriceSource:
    """Return the prices of a pipeline, changed.

    Raises:
        ValueError, OSError: They can't be made; see `make_source`.
    """
    return make_source(config.prices, config.episodes_seed, reach=reach_of(Rules.of(config.rules)), change=change)


def play(
    config: PipelineConfig, source: PriceSource, episodes: range, wanted: Wanted | None = None, concurrent: int | None = None
) -> Played:
    """Play episodes with a pipeline as it is configured, apart from the server and the records.

    Args:
        config: Settings.
        source: The prices.
        episodes: Numbers of the episodes that are asked for; they begin with the first of `config.episodes.first_round`.
        wanted: How much of each; default: all. The run ends as soon as it has that.
        concurrent: Episodes at a time, that `config` is about otherwise.

    Raises:
        BaseException: Whatever made a node fail for good.
    """
    concurrent = concurrent or config.episodes.concurrent
    config = replace(
        config,
        worker_number=config.worker_number or 0,
        episodes=replace(config.episodes, concurrent=concurrent, first_rounds=(), steps=None, count=None, training_enabled=False),
        nodes=replace(config.nodes, inbox=replace(config.nodes.inbox, overflow="block", max_restarts=0)),  # a failure is no result
    )
    watched = _WatchedSource(source)
    space = Rules.of(config.rules).actions.space(source.slots)
    policy = _RandomPolicy(space, config.episodes_seed, watched, episodes, wanted or (lambda episode: episode.bars.n_steps + 1))
    policy.concurrent = concurrent
    book, courses = _Book(), _Courses()
    pipeline = Pipeline(config, policy, book, source=watched, turns=courses)
    policy.on_enough = pipeline.run.stopping.set
    with pipeline.running():
        pipeline.wait()
    played = Played(watched.made, courses=courses.of)
    for number, heard in policy.heard.items():
        played.observations[number] = np.stack(heard)
        played.actions[number] = policy.actions[number]
    played.recorded = book.by_episode(played)
    return played


class _Courses:
    """Takes the turns of a run, those of a block in their order."""

    def __init__(self) -> None:
        self.of: dict[int, Course] = {}
        self._lock = threading.Lock()  # guards all of it: each node has a thread of its own
        self._turns: dict[int, int] = {}
        self._playing: dict[tuple[int, int], Course] = {}

    def add(self, turn: Turn) -> None:
        """See `Turns`."""
        with self._lock:
            now = self._turns.get(turn.block, 0)
            self._turns[turn.block] = now + 1
            for row in turn.marked[0].tolist() if turn.marked else ():
                self._playing[turn.block, row].bars += 1
            for row, number in zip(*(column.tolist() for column in turn.begun), strict=True) if turn.begun else ():
                self.of[number] = self._playing[turn.block, row] = Course(now)


class _WatchedSource:
    """A source that keeps the episodes that it has made."""

    def __init__(self, source: PriceSource) -> None:
        self._source = source
        self.symbols = source.symbols
        self.slots = source.slots
        self.is_recorded = source.is_recorded
        self.n_windows = source.n_windows
        self.columns = source.columns
        self.notes = source.notes
        self.annualisations = source.annualisations
        self.bar_intervals_ns = source.bar_intervals_ns
        self.made: dict[int, Episode] = {}

    def episodes(self, numbers: Sequence[int]) -> list[Episode]:
        """See `EpisodeSource`."""
        episodes = self._source.episodes(numbers)
        self.made.update(zip(numbers, episodes, strict=True))
        return episodes


class _RandomPolicy:
    """Acts at random, in each episode by its own generator, and keeps what it was asked. See `PolicyService`."""

    weights_seq_no = 0

    def __init__(self, space: gym.Space[Any], seed: int, source: _WatchedSource, episodes: range, wanted: Wanted) -> None:
        self._space = space
        self._seed = seed
        self._source = source
        self._wanted = wanted
        self._lock = threading.Lock()  # guards what is still to come
        self._missing = set(episodes)
        self.on_enough: Callable[[], None] = lambda: None
        self.concurrent = 1
        self.actions: dict[int, npt.NDArray[Any]] = {}
        self.heard: dict[int, list[Observations]] = {}
        self._of_thread = threading.local()

    def start_episodes(self, episodes: Sequence[str], training_enabled: bool) -> list[str]:
        """See `PolicyService`."""
        for name in episodes:
            number = _number(name)
            key = int.from_bytes(hashlib.sha256(f"audit/actions/{name}".encode()).digest()[:8])
            rng = np.random.default_rng(np.random.SeedSequence(entropy=self._seed, spawn_key=(key,)))
            self.actions[number] = random_actions(self._space, rng, self._source.made[number].bars.n_steps)
            self.heard[number] = []
        self._have([_number(name) - self.concurrent for name in episodes])  # those before them are over
        return list(episodes)

    def get_actions(self, episode_ids: Sequence[str], observations: Observations) -> npt.NDArray[Any]:
        """See `PolicyService`."""
        numbers = [_number(name) for name in episode_ids]
        places = [len(self.heard[number]) for number in numbers]
        self._hear(numbers, observations)
        self._of_thread.asked = len(numbers)
        return np.stack([self.actions[number][place] for number, place in zip(numbers, places, strict=True)])

    def end_episodes(
        self, episode_ids: Sequence[str], observations: Observations, truncated: npt.NDArray[np.bool_], *, timeout_s: float | None = None
    ) -> None:
        """See `PolicyService`."""
        numbers = [_number(name) for name in episode_ids]
        self._hear(numbers, observations)
        self._have(numbers)

    def answered_by(self) -> npt.NDArray[np.int64]:
        """See `PolicyService`."""
        return np.zeros(self._of_thread.asked, dtype=np.int64)

    def take_learner_wait_s(self) -> float:
        """See `PolicyService`."""
        return 0.0

    def log_actions(self, episode_ids: Sequence[str], observations: Observations, actions: npt.NDArray[Any]) -> None:
        """See `PolicyService`. Not called: every action is there in time."""

    def log_returns_batch(self, episode_ids: Sequence[str], rewards: Sequence[float]) -> None:
        """See `PolicyService`. Rewards are in the records."""

    def _hear(self, numbers: list[int], observations: Observations) -> None:
        for number, observation in zip(numbers, observations, strict=True):
            self.heard[number].append(observation)
        self._have([number for number in numbers if len(self.heard[number]) >= self._wanted(self._source.made[number])])

    def _have(self, numbers: list[int]) -> None:
        with self._lock:
            self._missing.difference_update(numbers)
            enough = not self._missing
        if enough:
            self.on_enough()


class _Book(MultiSink):
    """Keeps the points of steps and of whatever else is recorded of an episode's bars."""

    def __init__(self) -> None:
        super().__init__()
        self._batches: dict[str, list[Points]] = {}

    def write(self, points: Points) -> None:
        """See `Sink`."""
        if {"episode", "bar"} <= points.columns.keys():
            self._batches.setdefault(points.measurement, []).append(points)

    def by_episode(self, played: Played) -> dict[int, dict[str, Recorded]]:
        """Return what was recorded of each episode of a run."""
        recorded: dict[int, dict[str, Recorded]] = {}
        for measurement, batches in self._batches.items():
            numbers = np.array([_number(name) for points in batches for name in points.columns["episode"]])
            order = np.argsort(numbers, kind="stable")
            firsts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
            for name, values in _numeric(batches).items():
                bars = np.concatenate([np.asarray(points.columns["bar"]) for points in batches])
                comes_later = measurement == "step" and name not in _KNOWN_WHEN_ACTING
                for rows in np.split(order, firsts[1:]):
                    number, bar = int(numbers[rows[0]]), bars[rows]
                    if comes_later:
                        asks = _bars_of(played.episodes[number], played.courses[number])
                        bar = asks[np.minimum(np.searchsorted(asks, bar, side="right"), len(asks) - 1)]
                    recorded.setdefault(number, {})[f"{measurement}.{name}"] = Recorded(bar, values[rows])
        return recorded


def _numeric(batches: list[Points]) -> dict[str, FloatArray]:
    """Return the columns of numbers that all batches have, float64 (n,)."""
    names = set.intersection(*(set(points.columns) for points in batches)) - {"episode", "bar"}
    joined = {name: [np.asarray(points.columns[name]) for points in batches] for name in sorted(names)}
    return {
        name: np.concatenate(parts).astype(np.float64) for name, parts in joined.items() if all(part.dtype.kind in "fiub" for part in parts)
    }


def _bars_of(episode: Episode, course: Course) -> IntArray:
    """Return the bars at which an episode asked for an action, and the last one that it was played."""
    asks, last = episode.bars.asks, course.bars
    if asks is None:
        return np.arange(last + 1)
    first = episode.bars.warmup_bars - 1
    bars = np.flatnonzero(asks[first : first + last + 1])
    return bars if bars[-1] == last else np.append(bars, last)


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])
