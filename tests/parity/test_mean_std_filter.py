"""The filter on whole batches gives what RLlib's own gives row by row, and keeps its statistics as RLlib does."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.utils.filter import RunningStat

from policyserver.server.policies.vectorized.mean_std_filter import VectorizedMeanStdFilter
from tests.parity.rows import OneRow, StockRows, pipeline_of, step_rows, written

WIDE = 1e6
SPACES: dict[str, gym.Space[Any]] = {
    "vector": gym.spaces.Box(-WIDE, WIDE, (5,), np.float32),
    "double": gym.spaces.Box(-WIDE, WIDE, (2,), np.float64),
    "number": gym.spaces.Box(-WIDE, WIDE, (), np.float32),
    "image": gym.spaces.Box(-WIDE, WIDE, (4, 3, 1), np.float32),
    "integers": gym.spaces.Box(-1000, 1000, (3,), np.int32),
    "bits": gym.spaces.MultiBinary(4),
}


def statistics_of(filter_: MeanStdFilter) -> Any:
    """Return what RLlib's filter of a single agent keeps: `running_stats`, and `buffer` of what is not shared yet."""
    return filter_._filters[None]


class Pair:
    """RLlib's filter and ours, on the same rows."""

    def __init__(
        self, space: gym.Space[Any], seed: int = 0, *, center: Any = 0.0, spread: Any = 1.0, untrained: float = 0.0, **options: Any
    ):
        self.space, self.random = space, np.random.default_rng(seed)
        self.center, self.spread = center, spread
        self.stock_filter, self.own_filter = MeanStdFilter(**options), MeanStdFilter(**options)
        self.stock = pipeline_of(space, self.stock_filter)
        self.own = pipeline_of(space, self.own_filter)
        self.rows = StockRows(self.stock, self.random, self.observe, untrained_share=untrained)
        self.connector = VectorizedMeanStdFilter(self.own_filter)

    def observe(self) -> Any:
        if isinstance(self.space, gym.spaces.MultiBinary):
            return self.random.integers(0, 2, self.space.shape).astype(np.int8)
        assert isinstance(self.space, gym.spaces.Box)
        values = self.center + self.spread * self.random.normal(size=self.space.shape)
        return np.asarray(values, self.space.dtype)

    def check(self, rows: list[OneRow]) -> None:
        """Have our filter write and learn rows that RLlib's has written; compare."""
        (ours,) = self.connector.write(step_rows(self.space, rows).observations, step_rows(self.space, rows))
        theirs = written(rows)
        assert ours.dtype == theirs.dtype
        if ours.dtype.kind == "f":
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
        else:  # a number next to an integer may be cut off to either side of it
            assert np.abs(ours.astype(int) - theirs).max() <= 1
            assert (ours == theirs).mean() > 0.99
        self.connector.commit(np.ones(len(rows), np.bool_))

    def check_statistics(self) -> None:
        stock, own = statistics_of(self.stock_filter), statistics_of(self.own_filter)
        check_same(own.running_stats, stock.running_stats)
        check_same(own.buffer, stock.buffer)


def check_same(ours: RunningStat, theirs: RunningStat) -> None:
    for name, value in vars(theirs).items():
        np.testing.assert_allclose(getattr(ours, name), value, rtol=1e-9, atol=1e-7, err_msg=name)
        if isinstance(value, np.ndarray):
            assert (getattr(ours, name).shape, getattr(ours, name).dtype) == (value.shape, value.dtype), name
    assert type(ours.num_pushes) is type(ours.num_pushes_delta) is int


@pytest.mark.long
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("untrained", [0.0, 0.4])
def test_every_row_is_normalised_as_rllib_does_it(space: str, untrained: float) -> None:
    for seed in range(3):
        pair = Pair(SPACES[space], seed, center=7.0, spread=3.0, untrained=untrained)
        for rows in pair.rows.batches(12, 9):
            pair.check(rows)
        pair.check_statistics()


@pytest.mark.parametrize(
    "options",
    [
        {"de_mean_to_zero": False},
        {"de_std_to_one": False},
        {"de_mean_to_zero": False, "de_std_to_one": False, "clip_by_value": 2.0},
        {"clip_by_value": 0.5},
        {"clip_by_value": 0.0},
        {"update_stats": False},
    ],
    ids=str,
)
def test_every_setting_of_the_filter_counts(options: dict[str, Any]) -> None:
    pair = Pair(SPACES["vector"], center=np.array([0.0, 50.0, -3.0, 1e3, 0.0]), spread=np.array([1.0, 10.0, 0.0, 1.0, 1e-3]), **options)
    for rows in pair.rows.batches(12, 9):
        pair.check(rows)
    if options.get("update_stats", True):
        pair.check_statistics()
    assert statistics_of(pair.own_filter).running_stats.num_pushes == statistics_of(pair.stock_filter).running_stats.num_pushes


def test_it_goes_on_from_any_state() -> None:
    pair = Pair(SPACES["vector"], center=1e4, untrained=0.2)
    for rows in pair.rows.batches(4, 20):
        pair.check(rows)
    state = pair.stock.get_state()
    for filter_ in (pair.stock, pair.own):
        filter_.set_state(state)
    pair.center = -20.0
    for rows in pair.rows.batches(4, 20):
        pair.check(rows)
    pair.check_statistics()


@pytest.mark.long
def test_one_large_batch_and_one_constant_feature() -> None:
    pair = Pair(SPACES["vector"], center=np.array([1e5, 0.1, 0.0, -1e5, 3.0]), spread=np.array([1.0, 0.0, 1e-4, 1e4, 0.0]))
    pair.check(pair.rows.batch(700))
    pair.check(pair.rows.batch(700))
    pair.check_statistics()


def test_write_learns_nothing_and_only_kept_rows_are_learned() -> None:
    pair, without = Pair(SPACES["vector"]), MeanStdFilter()
    reference = pipeline_of(pair.space, without)
    refused = np.array([False, True, False, True, False, False])
    for _ in range(3):
        rows = pair.rows.batch(6)
        before = pair.own.get_state()
        pair.connector.write(step_rows(pair.space, rows).observations, step_rows(pair.space, rows))
        pair.connector.write(step_rows(pair.space, rows).observations, step_rows(pair.space, rows))
        assert pair.own.get_state() == before
        pair.connector.commit(~refused)
        reference.get_state()
        for row, is_refused in zip(rows, refused, strict=True):
            if not is_refused:
                statistics_of(without)(row.observation)
    check_same(statistics_of(pair.own_filter).running_stats, statistics_of(without).running_stats)
    pair.connector.commit(~refused)
    assert statistics_of(pair.own_filter).running_stats.num_pushes == 12


@pytest.mark.long
def test_statistics_hold_after_ten_million_rows_far_from_zero() -> None:
    space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    filter_ = MeanStdFilter()
    pipeline_of(space, filter_)
    connector, random = VectorizedMeanStdFilter(filter_), np.random.default_rng(1)
    rows = step_rows(space, [OneRow(np.zeros(1, np.float32), False)] * 50_000)
    total = squares = 0
    for _ in range(200):
        steps = random.integers(-2048, 2049, (50_000, 1))
        connector.write([(1e4 + steps / 1024).astype(np.float32)], rows)
        connector.commit(np.ones(50_000, np.bool_))
        total += int(steps.sum())
        squares += int(np.square(steps).sum())
    statistic = statistics_of(filter_).running_stats
    mean = total / 1e7
    assert statistic.num_pushes == 10_000_000
    np.testing.assert_allclose(statistic.mean, 1e4 + mean / 1024, rtol=1e-13)
    np.testing.assert_allclose(statistic.sum_sq_diff_array, (squares - 1e7 * mean**2) / 1024**2, rtol=1e-10)


@pytest.mark.long
def test_a_row_takes_a_small_part_of_the_stock_filters_time() -> None:
    pair = Pair(gym.spaces.Box(-WIDE, WIDE, (10,), np.float32))
    stock = pair.rows.batch(256)
    rows = step_rows(pair.space, stock)
    everyone = np.ones(256, np.bool_)
    own_s = stock_s = np.inf
    filter_ = statistics_of(pair.stock_filter)
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(4):
            pair.connector.write(rows.observations, rows)
            pair.connector.commit(everyone)
        own_s = min(own_s, (time.perf_counter() - began) / 4)
        began = time.perf_counter()
        for row in stock:
            filter_(row.observation)
        stock_s = min(stock_s, time.perf_counter() - began)
    assert own_s < stock_s / 15, f"{own_s / 256 * 1e6:.2f} against {stock_s / 256 * 1e6:.2f} microseconds"
