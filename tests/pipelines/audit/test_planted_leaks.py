"""`check-future` finds mistakes that give a pipeline the future, planted by another person than the author of the check.

They were planted by the code of the market alone: each is a small change that a programmer makes without noticing.

These were planted, too, and are not found:

- A reward that pays the new position for the bar that was seen before it. It changes with no later bar, and the fair game judges accounts.
- An observer that knows the parameters of a simulated episode, such as its drift. They are the same before and after a cut.
- A policy that is asked at the last bar before a multiple of `decide`, which is known to be by the next bar's time. No time is changed.
- An observer that begins its recursion with the first action and not with the warm-up. A longer warm-up changes nothing of it.
- A file of times with a clock, stamped with the beginning of its bars and read as stamped with their end. The file alone says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from policyserver.pipelines import baselines, check_future, played_block
from policyserver.pipelines.config import PipelineConfig, PlayedEpisodesConfig
from policyserver.pipelines.forecast import forecasts
from policyserver.pipelines.forecast.block_forecaster import BlockForecaster
from policyserver.pipelines.forecast.track_features import TrackFeatures
from policyserver.pipelines.forecast.tracks import Track, Tracks
from policyserver.pipelines.market import catalog
from policyserver.pipelines.market.adjust import AdjustConfig
from policyserver.pipelines.market.bars import BarRows, Bars, FloatArray, IntArray
from policyserver.pipelines.market.block import EpisodeBlock, WarmUp
from policyserver.pipelines.market.catalog import Catalog, CatalogConfig
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.execution import broker
from policyserver.pipelines.market.execution.broker import SimulatedBroker
from policyserver.pipelines.market.execution.filling import Filling
from policyserver.pipelines.market.execution.matching import matches as market_matches
from policyserver.pipelines.market.execution.next_open import NextOpen
from policyserver.pipelines.market.execution.opening import Opening
from policyserver.pipelines.market.execution.order_table import KIND, PRICE, SIDE, SYMBOL
from policyserver.pipelines.market.feed import BarFeed
from policyserver.pipelines.market.files.config import FilesConfig
from policyserver.pipelines.market.files.dialect import Dialect
from policyserver.pipelines.market.files.faults import FaultPolicies
from policyserver.pipelines.market.files.reader import Recording
from policyserver.pipelines.market.history import FIELDS
from policyserver.pipelines.market.orders import Fills, OrderKind
from policyserver.pipelines.market.processes import gbm, process
from policyserver.pipelines.market.processes.path_bars import bars_from_paths as market_bars_from_paths
from policyserver.pipelines.market.processes.process import log_prices
from policyserver.pipelines.market.resample import ResampleConfig
from policyserver.pipelines.market.resample import resample as market_resample
from policyserver.pipelines.market.risk.limit import Proposed, RiskLimit
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.rules import RulesConfig
from policyserver.pipelines.market.running_statistics import LogPrices, Statistic
from policyserver.pipelines.market.schemes.ends.end import End
from policyserver.pipelines.market.schemes.observers.observer import Observer
from policyserver.pipelines.market.schemes.rewards.reward_term import RewardTerm
from policyserver.pipelines.market.schemes.scheme import Shape, View
from policyserver.pipelines.market.split import Fold, Reach, SplitConfig
from policyserver.pipelines.market.split import split as market_split
from policyserver.pipelines.market.time_line import RecordedSymbol, TimeLine
from policyserver.pipelines.market.vector_env import begin_episodes
from policyserver.pipelines.market.windows import WindowTable, find_windows
from policyserver.pipelines.prices import PricesConfig, recorded
from policyserver.pipelines.prices.recorded import RecordedSource

BARS = 480
MINUTE_S, DAY_S = 60, 86_400
FIRST_S = 1_704_067_200
"""2024-01-01T00:00:00Z."""

Patch = pytest.MonkeyPatch
BoolArray = npt.NDArray[np.bool_]
_CLOSE, _VOLUME = FIELDS.index("close"), FIELDS.index("volume")


# Files and settings ------------------------------------------------------------------------------------------------------------------


def write_files(folder: Path) -> None:
    """Four symbols of 10-minute bars, with gaps from close to open; C lacks a third of them, D the first half. Every other bar has news."""
    for number, symbol in enumerate("ABCD"):
        rng = np.random.default_rng(number)
        lacks = {"C": rng.random(BARS) > 0.67, "D": np.arange(BARS) < BARS // 2}
        kept = np.flatnonzero(~lacks.get(symbol, np.zeros(BARS, dtype=np.bool_)))
        gaps, moves = rng.normal(0, 0.002, BARS), rng.normal(0, 0.004, BARS)
        closes = 100 * np.exp(np.cumsum(gaps + moves))
        opens = closes * np.exp(-moves)
        highs, lows = (
            pick(opens, closes) * np.exp(sign * rng.exponential(0.001, BARS)) for pick, sign in ((np.maximum, 1), (np.minimum, -1))
        )
        volumes, news = rng.lognormal(7, 0.5, BARS), np.where(np.arange(BARS) % 2 == 0, rng.normal(0, 1, BARS).round(3), np.nan)
        adjusted = closes * np.exp(-0.004 * ((BARS - 1 - np.arange(BARS)) // 24))
        columns = [opens, highs, lows, closes, volumes, adjusted, news]
        cells = [[FIRST_S + 10 * MINUTE_S * int(row + 1), *(float(column[row]) for column in columns)] for row in kept]
        lines = [",".join("" if cell != cell else repr(cell) for cell in row) for row in cells]
        lines[0] = lines[0] if not lines[0].endswith(",") else f"{lines[0]}0.5"
        (folder / f"{symbol}.csv").write_text(
            "\n".join(["time,open,high,low,close,volume,Adj Close,news", *lines]) + "\n", encoding="utf-8"
        )


def config_of(prices: PricesConfig, rules: RulesConfig, concurrent: int = 4) -> PipelineConfig:
    return PipelineConfig(seed=1, episodes=PlayedEpisodesConfig(concurrent=concurrent), prices=prices, rules=rules, stop_timeout_s=10.0)


def simulated(*, process: Any = "gbm", **rules: Any) -> PipelineConfig:
    prices = PricesConfig(process=process, bars_per_episode=40, warmup_bars=40)
    return config_of(prices, RulesConfig(**rules))


def of_files(
    folder: Path,
    symbols: str = "AB",
    columns: tuple[str, ...] = (),
    files: Any = None,
    source: Any = None,
    rules: Any = None,
    **prices: Any,
) -> PipelineConfig:
    paths = tuple(str(folder / f"{symbol}.csv") for symbol in symbols)
    found = CatalogConfig(paths, files=FilesConfig(columns=columns, **(files or {})), **(source or {}))
    return config_of(PricesConfig(recorded=found, **({"bars_per_episode": 40, "warmup_bars": 40} | prices)), RulesConfig(**(rules or {})))


def with_news(folder: Path, **more: Any) -> PipelineConfig:
    return of_files(folder, columns=("news",), rules={"observers": ("returns", {"name": "exogenous", "columns": ("news",)})}, **more)


def own(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": f"python:{__name__}.{name}", **settings}


LIMITS = {"actions": "limit_offsets"}


# Features that are computed of a whole file ------------------------------------------------------------------------------------------


def feature(patch: Patch, make: Callable[[Bars], FloatArray]) -> None:
    """Put what is made of a file's bars in the place of its column `news`, as soon as the file is read."""
    before = Catalog._prepared

    def prepared(self: Catalog, recording: Recording) -> Recording:
        found = before(self, recording)
        return replace(found, extras={**found.extras, "news": make(found.bars)})

    patch.setattr(Catalog, "_prepared", prepared)


def expanding_score(bars: Bars) -> FloatArray:
    """The clean way: each close beside the mean of the closes so far."""
    mean: FloatArray = np.cumsum(bars.close) / np.arange(1, len(bars) + 1)
    return bars.close / mean - 1


def centred_mean(bars: Bars) -> FloatArray:
    mean: FloatArray = np.convolve(np.pad(bars.close, 4, mode="edge"), np.ones(9) / 9, mode="valid")
    return bars.close / mean - 1


def scaled_by_the_file(bars: Bars) -> FloatArray:
    score: FloatArray = (bars.close - bars.close.mean()) / bars.close.std()
    return score


def next_return(bars: Bars) -> FloatArray:
    return np.append(np.diff(np.log(bars.close)), 0.0)


def high_of_the_day(bars: Bars) -> FloatArray:
    _, day = np.unique((bars.time_ns - 1) // (DAY_S * 10**9), return_inverse=True)
    highest = np.zeros(day.max() + 1)
    np.maximum.at(highest, day, bars.high)
    return bars.close / highest[day] - 1


def rank_in_the_file(bars: Bars) -> FloatArray:
    ranks: FloatArray = np.argsort(np.argsort(bars.volume)) / len(bars)
    return ranks


def hourly_close_labelled_left(bars: Bars) -> FloatArray:
    hour = (bars.time_ns - 1) // (3600 * 10**9)
    last = np.append(np.flatnonzero(np.diff(hour)), len(bars) - 1)
    label = hour[last] * 3600 * 10**9  # the beginning of the hour, as pandas labels it
    hourly: FloatArray = bars.close[last][np.maximum(np.searchsorted(label, bars.time_ns, side="right") - 1, 0)]
    return hourly / bars.close - 1


def filled_backwards(patch: Patch) -> None:
    def carried(values: FloatArray, name: str, path: str) -> FloatArray:
        known = np.flatnonzero(np.isfinite(values))
        return values[known[np.minimum(np.searchsorted(known, np.arange(len(values))), len(known) - 1)]]

    patch.setattr(catalog, "_carried", carried)


def interpolated_news(patch: Patch) -> None:
    def carried(values: FloatArray, name: str, path: str) -> FloatArray:
        known = np.isfinite(values)
        return np.interp(np.arange(len(values)), np.flatnonzero(known), values[known])

    patch.setattr(catalog, "_carried", carried)


def joined_forwards(patch: Patch) -> None:
    patch.setattr(
        catalog, "newest", lambda time_ns, values, at: values[np.minimum(np.searchsorted(time_ns, at, side="right"), len(values) - 1)]
    )


# Files -------------------------------------------------------------------------------------------------------------------------------


def volume_of_the_next_bar(patch: Patch) -> None:
    before = RecordedSymbol.of

    def of(bars: Bars, extras: Any, names: Any, *more: Any) -> RecordedSymbol:
        return before(replace(bars, volume=np.append(bars.volume[1:], bars.volume[-1])), extras, names, *more)

    patch.setattr(RecordedSymbol, "of", of)


def close_after_the_interval(patch: Patch) -> None:
    def resample(bars: Bars, config: ResampleConfig, calendar: Any = None) -> Bars:
        longer = market_resample(bars, config, calendar)
        close = bars.close[np.minimum(np.searchsorted(bars.time_ns, longer.time_ns, side="right"), len(bars) - 1)]  # one too far
        return replace(longer, close=close, high=np.maximum(longer.high, close), low=np.minimum(longer.low, close))

    patch.setattr(catalog, "resample", resample)


def stale_prices_from_the_future(patch: Patch) -> None:
    before = TimeLine.of

    def of(symbols: tuple[str, ...], symbols_of: Any) -> TimeLine:
        line = before(symbols, symbols_of)
        assert line.present is not None
        columns = line.columns.copy()
        for place, symbol in enumerate(symbols):
            bars = symbols_of[symbol].bars
            filled = bars.close[np.minimum(np.searchsorted(bars.time_ns, line.time_ns), len(bars) - 1)]  # fillna(method="bfill")
            columns[:, place, : _CLOSE + 1] = np.where(
                line.present[:, place, None],
                columns[:, place, : _CLOSE + 1],
                filled[:, None],
            )
        return replace(line, columns=columns)

    patch.setattr(TimeLine, "of", of)


def missing_bars_interpolated(patch: Patch) -> None:
    before = Catalog._prepared

    def prepared(self: Catalog, recording: Recording) -> Recording:
        found = before(self, recording)
        bars = found.bars
        times = np.arange(bars.time_ns[0], bars.time_ns[-1] + 1, 600 * 10**9)
        made = Bars(times, *(np.interp(times, bars.time_ns, getattr(bars, name)) for name in FIELDS))
        return replace(found, bars=made, stamp_ns=times, extras={})

    patch.setattr(Catalog, "_prepared", prepared)


def survivors_alone(patch: Patch) -> None:
    before = recorded._read

    def read(config: Any, change: Any, least: Any) -> dict[str, RecordedSymbol]:
        symbols = before(config, change, least)
        gain = {symbol: float(each.bars.close[-1] / each.bars.close[0]) for symbol, each in symbols.items()}
        return {symbol: symbols[symbol] for symbol in sorted(gain, key=lambda name: -gain[name])[:2]}

    patch.setattr(recorded, "_read", read)


# Windows -----------------------------------------------------------------------------------------------------------------------------


def tables_by_bars(patch: Patch, choose: Callable[[WindowTable, FloatArray], IntArray]) -> None:
    before = RecordedSource._windows

    def windows(self: RecordedSource, cuts: Any, purge: int) -> list[list[WindowTable]]:
        return [
            [
                replace(table, first=table.first[chosen], stop=table.stop[chosen], begin_ns=table.begin_ns[chosen])
                for line, table in zip(self._lines, tables, strict=True)
                for chosen in [choose(table, line.columns[:, 0, _CLOSE])]
            ]
            for tables in before(self, cuts, purge)
        ]

    patch.setattr(RecordedSource, "_windows", windows)


def without_crashes(table: WindowTable, close: FloatArray) -> IntArray:
    worst = [close[first:stop].min() / close[first - 1] for first, stop in zip(table.first, table.stop, strict=True)]
    return np.flatnonzero(np.array(worst) > 0.98)


def calm_ones_first(table: WindowTable, close: FloatArray) -> IntArray:
    return np.argsort([np.diff(close[first:stop]).std() for first, stop in zip(table.first, table.stop, strict=True)], kind="stable")


def ended_before_a_jump(patch: Patch) -> None:
    before = RecordedSource._episode

    def episode(self: RecordedSource, number: int) -> Episode:
        whole = before(self, number)
        bars = whole.bars
        moves = np.abs(np.diff(np.log(bars.bars[:, 0, _CLOSE]), prepend=np.log(bars.bars[0, 0, _CLOSE])))
        jumps = np.flatnonzero(moves > 0.009)
        stop = next((int(jump) for jump in jumps if jump > bars.warmup_bars), len(moves))
        return replace(whole, bars=replace(bars, time_ns=bars.time_ns[:stop], bars=bars.bars[:stop]))

    patch.setattr(RecordedSource, "_episode", episode)


def training_that_ends_in_the_testing(patch: Patch) -> None:
    def windows(time_ns: IntArray, span: tuple[int, int], length: Any, config: Any, calendar: Any = None, *, is_test: bool) -> WindowTable:
        return find_windows(time_ns, (span[0], min(span[1] + length.n_bars, len(time_ns))), length, config, calendar, is_test=is_test)

    patch.setattr(recorded, "find_windows", windows)


def no_purge(patch: Patch) -> None:
    patch.setattr(Reach, "purge_bars", 0)


def split_by_rows(patch: Patch) -> None:
    def split(time_ns: IntArray, cuts: Any, purge_bars: int) -> list[Fold]:
        test = len(time_ns) * 6 // 10
        return [Fold((0, test - purge_bars), (test, len(time_ns))) for _ in cuts]

    patch.setattr(recorded, "split", split)


def split_of_rows_in_the_wrong_order(patch: Patch) -> None:
    def split(time_ns: IntArray, cuts: Any, purge_bars: int) -> list[Fold]:
        turned = [
            (len(time_ns) - stop, len(time_ns) - start)
            for fold in market_split(time_ns, cuts, purge_bars)
            for start, stop in (fold.train, fold.test)
        ]
        return [Fold(turned[0], turned[1])]

    patch.setattr(recorded, "split", split)


# Forecasts ---------------------------------------------------------------------------------------------------------------------------


def file_learnt_before_it_is_forecast(patch: Patch) -> None:
    before = Track._begin

    def begin(self: Track) -> None:
        before(self)
        for close in self._history.bars.close.tolist():
            self._step(close, True)
        self._features, self._newest = TrackFeatures(self._history.window_bars), None

    patch.setattr(Track, "_begin", begin)


def scaler_of_the_regressor_fitted_on_the_file(patch: Patch) -> None:
    before = Track._begin

    def begin(self: Track) -> None:
        before(self)
        features = TrackFeatures(self._history.window_bars)
        for close in self._history.bars.close.tolist():
            features.update(close)
            if np.isfinite(features.last_return):
                self._regressor._model["StandardScaler"].learn_one(features.inputs())

    patch.setattr(Track, "_begin", begin)


def forecast_of_the_row_it_is_judged_by(patch: Patch) -> None:
    known_from, forecasts = Track.known_from, Track.forecasts
    patch.setattr(Track, "known_from", lambda self, row: known_from(self, min(row + 1, len(self._forecasts) - 1)) - 1)
    patch.setattr(Track, "forecasts", lambda self, rows: forecasts(self, np.minimum(rows + 1, len(self._forecasts) - 1)))


def learnt_in_the_order_of_play(patch: Patch) -> None:
    def forecaster(view: View, tracks: Tracks) -> BlockForecaster:
        return BlockForecaster(view, tracks._config)

    patch.setattr(forecasts, "TrackForecaster", forecaster)


# Fills -------------------------------------------------------------------------------------------------------------------------------


def without_next_open(patch: Patch) -> None:
    """All orders are in the table, where the leaks below look for them; the books are the same to the bit."""
    patch.setattr(NextOpen, "take", lambda self, requests: False)


def filled_at(patch: Patch, field_name: str) -> None:
    """Market orders fill at a price of the bar at whose close they were given."""
    without_next_open(patch)
    before = EpisodeBlock.fill

    def fill(self: EpisodeBlock, rows: Rows, bar: BarRows, present: BoolArray | None = None) -> Fills:
        seen = getattr(self.view.bar, field_name)[rows].copy()

        def play(numbers: IntArray, bar: BarRows) -> None:
            columns = bar.columns.copy()
            columns[..., 0] = seen
            SimulatedBroker._play_market_orders(self.broker, numbers, BarRows(bar.time_ns, columns))

        self.broker._play_market_orders = play  # type: ignore[method-assign]
        return before(self, rows, bar, present)

    patch.setattr(EpisodeBlock, "fill", fill)


def bought_low_and_sold_high(patch: Patch) -> None:
    without_next_open(patch)
    before = Filling.fill

    def fill(self: Filling, places: IntArray, rows: IntArray, slot: int, reference: FloatArray) -> None:
        orders = self._table.orders[rows, slot]
        symbol = orders[:, SYMBOL].astype(np.int64)
        before(self, places, rows, slot, np.where(orders[:, SIDE] > 0, self._bar.low[places, symbol], self._bar.high[places, symbol]))

    patch.setattr(Filling, "fill", fill)


def stopped_at_the_stop(patch: Patch) -> None:
    def matches(orders: FloatArray, bar: BarRows, *market: Any) -> tuple[BoolArray, FloatArray]:
        matched, reference = market_matches(orders, bar, *market)
        return matched, np.where(orders[:, :, KIND] == OrderKind.STOP, orders[:, :, PRICE], reference)

    patch.setattr(broker, "matches", matches)


def limits_at_the_best_price(patch: Patch) -> None:
    def matches(orders: FloatArray, bar: BarRows, *market: Any) -> tuple[BoolArray, FloatArray]:
        matched, reference = market_matches(orders, bar, *market)
        best = np.where(orders[:, :, SIDE] > 0, bar.low[:, :1], bar.high[:, :1])
        return matched, np.where(orders[:, :, KIND] == OrderKind.LIMIT, best, reference)

    patch.setattr(broker, "matches", matches)


def limits_reached_by_the_bar_before(patch: Patch) -> None:
    before = EpisodeBlock.fill

    def fill(self: EpisodeBlock, rows: Rows, bar: BarRows, present: BoolArray | None = None) -> Fills:
        seen = self.view.bar.columns[rows].copy()

        def play(numbers: IntArray, bar: BarRows, present: BoolArray | None) -> None:
            columns = bar.columns.copy()
            columns[..., 1] = np.maximum(columns[..., 1], seen[..., 1])
            columns[..., 2] = np.minimum(columns[..., 2], seen[..., 2])
            SimulatedBroker._play_orders(self.broker, numbers, BarRows(bar.time_ns, columns), present)

        self.broker._play_orders = play  # type: ignore[method-assign]
        return before(self, rows, bar, present)

    patch.setattr(EpisodeBlock, "fill", fill)


def filled_in_a_bar_that_had_begun(patch: Patch) -> None:
    """A symbol's next bar is the next one for every order, as long as it may be."""
    before = TimeLine.of
    patch.setattr(TimeLine, "of", lambda symbols, symbols_of: replace(before(symbols, symbols_of), covers=None))


@dataclass(frozen=True, slots=True)
class NoFallingKnife(RiskLimit):
    """Opens nothing against the last bar."""

    def refuses(self, state: Any, view: View, orders: Proposed) -> BoolArray:
        return np.zeros(len(orders.rows), dtype=np.bool_)

    def room(self, state: Any, view: View, opening: Opening) -> FloatArray:
        moved = view.bar.close[opening.rows, opening.symbol] - view.bar.open[opening.rows, opening.symbol]
        return np.where(moved * opening.side < 0, 0.0, np.inf)


def bar_set_before_the_orders_fill(patch: Patch) -> None:
    before = EpisodeBlock.fill

    def fill(self: EpisodeBlock, rows: Rows, bar: BarRows, present: BoolArray | None = None) -> Fills:
        self.view.bar.set(self._all_or(rows), bar)
        return before(self, rows, bar, present)

    patch.setattr(EpisodeBlock, "fill", fill)


# Parts that are given the whole episode when it begins -------------------------------------------------------------------------------

_WHOLE: dict[int, dict[int, FloatArray]] = {}
"""By block and row the bars of its episode."""


def whole_episodes(patch: Patch) -> None:
    """Give parts the bars of an episode when it begins, so that they compute what they need for all bars at once."""

    def begin(block: EpisodeBlock, feed: BarFeed, rows: IntArray, episodes: list[Episode]) -> None:
        for row, episode in zip(rows.tolist(), episodes, strict=True):
            _WHOLE.setdefault(id(block.view), {})[row] = episode.bars.bars[episode.bars.warmup_bars - 1 :, 0, _CLOSE]
        begin_episodes(block, feed, rows, episodes)

    for module in (played_block, baselines):
        patch.setattr(module, "begin_episodes", begin)


def move(view: View, rows: Rows, bars_later: int, wraps: bool = False) -> FloatArray:
    """Log-return of the last bar of each row, or of one so many bars later; at the bar of the first action 0, or what place -1 holds."""
    found = []
    for row in np.arange(view.shape.n_rows)[rows].tolist():
        moves = np.diff(np.log(_WHOLE[id(view)][row]))
        place = min(int(view.clock[row]) + bars_later - 1, len(moves) - 1)
        found.append(moves[place] if place >= 0 or wraps else 0.0)
    return np.array(found)


@dataclass(frozen=True, slots=True)
class Precomputed(Observer):
    """The last return, looked up among those that were computed at the episode's begin."""

    bars_later: int = 0
    wraps: bool = False

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        return ("move",)

    def observe(self, state: Any, view: View, rows: Rows) -> FloatArray:
        return 100 * move(view, rows, self.bars_later, self.wraps)[:, None]


@dataclass(frozen=True, slots=True)
class ShareOfHighest(Observer):
    """The price over the highest of the episode."""

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        return ("share",)

    def observe(self, state: Any, view: View, rows: Rows) -> FloatArray:
        highest = [_WHOLE[id(view)][row].max() for row in np.arange(view.shape.n_rows)[rows].tolist()]
        share: FloatArray = view.accounts.price[rows] / np.array(highest)[:, None]
        return share


@dataclass(frozen=True, slots=True)
class ForwardReturn(RewardTerm):
    """The position times the return of the bar to come."""

    bars_later: int = 1

    def compute(self, state: Any, view: View, rows: Rows) -> FloatArray:
        return np.sign(view.accounts.position[rows, 0]) * move(view, rows, self.bars_later)


@dataclass(frozen=True, slots=True)
class BeforeTheCrash(End):
    """Ends an episode at the bar before one that falls by much."""

    bars_later: int = 1

    def reached(self, state: Any, view: View, rows: Rows) -> BoolArray:
        return move(view, rows, self.bars_later) < -0.015


@dataclass(frozen=True, slots=True)
class CalmBars(RiskLimit):
    """Refuses orders in a bar that moves by much."""

    bars_later: int = 1

    def refuses(self, state: Any, view: View, orders: Proposed) -> BoolArray:
        return np.abs(move(view, orders.rows, self.bars_later)) > 0.01


# Other parts -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunningScore(Observer):
    """The volume's score by a running mean and deviation, which are forgotten when an episode begins, or never."""

    forgets: bool = True

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        return ("score",)

    def new_state(self, shape: Shape) -> FloatArray:
        return np.zeros((shape.n_rows, 3))

    def begin(self, state: FloatArray, view: View, rows: Rows) -> None:
        if self.forgets:
            state[rows] = 0.0
        self.update(state, view, rows)

    def update(self, state: FloatArray, view: View, rows: Rows) -> None:
        volume = view.bar.volume[rows, 0]
        state[rows] += np.stack([np.ones_like(volume), volume, volume**2], axis=1)

    def observe(self, state: FloatArray, view: View, rows: Rows) -> FloatArray:
        count, total, squares = state[rows].T
        std = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 1e-9))
        score: FloatArray = ((view.bar.volume[rows, 0] - total / count) / std)[:, None]
        return score


@dataclass(frozen=True, slots=True)
class SmoothedPrice(Statistic):
    """Exponential mean that starts at the first bar it sees."""

    bars: int = 60

    def begin(self, value: FloatArray, rows: Rows, log_closes: FloatArray) -> None:
        value[rows] = log_closes[:, 0]
        for log_close in log_closes[:, 1:].swapaxes(0, 1):
            value[rows] += (log_close - value[rows]) * 2 / (self.bars + 1)

    def update(self, value: FloatArray, rows: Rows, prices: LogPrices) -> None:
        value[rows] += (prices.log_price[rows] - value[rows]) * 2 / (self.bars + 1)


@dataclass(frozen=True, slots=True)
class AboveSmoothed(Observer):
    """The log-price above its exponential mean."""

    span: int = 60

    def warmup_bars(self) -> int:
        return self.span // 2

    def statistics(self) -> tuple[Statistic, ...]:
        return (SmoothedPrice(self.span),)

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        return ("above",)

    def observe(self, state: Any, view: View, rows: Rows) -> FloatArray:
        return 100 * (view.statistics.prices.log_price[rows] - view.statistics[SmoothedPrice(self.span)][rows])


def returns_centred_over_the_path(patch: Patch) -> None:
    patch.setattr(gbm, "log_prices", lambda start, returns: log_prices(start, returns - returns.mean(axis=1, keepdims=True)))


def volume_beside_the_range_of_the_whole_path(patch: Patch) -> None:
    def bars_from_paths(draws: Any, paths: Any, steps_per_bar: int) -> Any:
        bars = market_bars_from_paths(draws, paths, steps_per_bar)
        ranges = np.log(bars.high / bars.low)
        so_far = np.cumsum(ranges, axis=1) / np.arange(1, ranges.shape[1] + 1)
        of_path = ranges.mean(axis=1, keepdims=True)
        return replace(bars, volume=bars.volume / (0.5 + ranges / so_far) * (0.5 + ranges / of_path))

    patch.setattr(process, "bars_from_paths", bars_from_paths)


def warm_up_one_bar_too_long(patch: Patch) -> None:
    def begin(block: EpisodeBlock, feed: BarFeed, rows: IntArray, episodes: list[Episode]) -> None:
        bars = [episode.bars for episode in episodes]
        for row, each in zip(rows.tolist(), bars, strict=True):
            feed.begin(row, each)
        count = bars[0].warmup_bars
        times, steps = np.array([each.time_ns[count - 1] for each in bars]), np.array([each.n_steps for each in bars])
        block.begin(rows, WarmUp(np.stack([each.bars[: count + 1] for each in bars]), times, steps))

    patch.setattr(played_block, "begin_episodes", begin)


# The leaks ---------------------------------------------------------------------------------------------------------------------------

pytestmark = pytest.mark.slow

Settings = Callable[[Path], PipelineConfig]


@dataclass(frozen=True, slots=True)
class Leak:
    """A mistake, and which of the checks finds it, by a part whose name contains a text."""

    settings: Settings
    plant: Callable[[Patch], None] = lambda patch: None
    found_by: tuple[str, ...] = ("changed future",)
    part: str = ""


def by_feature(make: Callable[[Bars], FloatArray]) -> Callable[[Patch], None]:
    return lambda patch: feature(patch, make)


def spikes(folder: Path) -> PipelineConfig:
    lines = (folder / "A.csv").read_text(encoding="utf-8").splitlines()
    for row in range(9, BARS, 10):
        time, *prices, volume, adjusted, news = lines[row].split(",")
        lines[row] = ",".join([time, *(repr(float(price) * 1.4) for price in prices), volume, adjusted, news])
    (folder / "S.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return of_files(folder, "S", files={"faults": FaultPolicies(spike="drop")})


def level(folder: Path, anchor: Any) -> PipelineConfig:
    rules = {"observers": ({"name": "differenced", "log": False},)}
    return of_files(
        folder,
        files={"mapping": Dialect(adjusted_close="adj close")},
        source={"adjust": AdjustConfig("adjusted_close", anchor=anchor)},
        rules=rules,
    )


def of_two_lengths(folder: Path) -> PipelineConfig:
    """A, bars of 10 minutes, and L, bars of half an hour."""
    header, *rows = (folder / "B.csv").read_text(encoding="utf-8").splitlines()
    cells = [[float(cell or 0) for cell in row.split(",")] for row in rows]
    longer = [
        [last[0], first[1], max(row[2] for row in three), min(row[3] for row in three), last[4], sum(row[5] for row in three), *last[6:]]
        for three in zip(cells[::3], cells[1::3], cells[2::3], strict=True)
        for first, last in [(three[0], three[-1])]
    ]
    (folder / "L.csv").write_text("\n".join([header, *(",".join(map(repr, row)) for row in longer)]) + "\n", encoding="utf-8")
    return of_files(folder, "AL", symbols_per_episode=2, rules={"actions": "target_weight"})


def divided(folder: Path) -> PipelineConfig:
    return of_files(folder, "AD", split=SplitConfig(train_fraction=0.7), warmup_bars=20)


def volume_seen(folder: Path) -> PipelineConfig:
    return of_files(folder, rules={"observers": ({"name": "indicator", "kind": "balance_of_volume"},)})


def with_own(part: str, **settings: Any) -> Settings:
    kinds = {Observer: "observers", RewardTerm: "rewards", End: "ends", RiskLimit: "risk"}
    kind = next(kind for base, kind in kinds.items() if issubclass(globals()[part], base))
    return lambda folder: simulated(**{kind: (own(part, **settings),)})


LEAKS = {
    "feature of a centred mean": Leak(with_news, by_feature(centred_mean), part="news"),
    "feature scaled by the whole file": Leak(with_news, by_feature(scaled_by_the_file), part="news"),
    "feature with the sign of its shift wrong": Leak(with_news, by_feature(next_return), ("changed future", "fair game"), "news"),
    "feature of the day's high": Leak(with_news, by_feature(high_of_the_day), part="news"),
    "feature of ranks in the file": Leak(with_news, by_feature(rank_in_the_file), part="news"),
    "hours labelled at their start": Leak(with_news, by_feature(hourly_close_labelled_left), part="news"),
    "column filled backwards": Leak(with_news, filled_backwards, part="news"),
    "column interpolated": Leak(with_news, interpolated_news, part="news"),
    "column joined forwards": Leak(
        lambda folder: with_news(folder, source={"resample": ResampleConfig("20min")}, bars_per_episode=20), joined_forwards, part="news"
    ),
    "volume of the next bar": Leak(volume_seen, volume_of_the_next_bar, part="balance_of_volume"),
    "resampled close beyond the interval": Leak(
        lambda folder: of_files(folder, source={"resample": ResampleConfig("20min")}, bars_per_episode=20),
        close_after_the_interval,
        ("changed future",),
    ),
    "stale price from the future": Leak(
        lambda folder: of_files(folder, "AC", symbols_per_episode=2, rules={"actions": "simplex_weights"}), stale_prices_from_the_future
    ),
    "missing bars interpolated": Leak(lambda folder: of_files(folder, "C"), missing_bars_interpolated),
    "adjusted price anchored at the last bar": Leak(lambda folder: level(folder, "last"), part="diff"),
    "spikes dropped": Leak(spikes),
    "survivors alone": Leak(lambda folder: of_files(folder, "ABC"), survivors_alone, part="episode"),
    "windows with a crash left out": Leak(of_files, lambda patch: tables_by_bars(patch, without_crashes), part="episode"),
    "calm windows first": Leak(of_files, lambda patch: tables_by_bars(patch, calm_ones_first), part="episode"),
    "episode ended before a jump": Leak(of_files, ended_before_a_jump),
    "training that ends in the testing": Leak(divided, training_that_ends_in_the_testing, part="split"),
    "no purge between training and testing": Leak(divided, no_purge, part="split"),
    "split by rows of each symbol": Leak(divided, split_by_rows, part="split"),
    "split of rows in the wrong order": Leak(divided, split_of_rows_in_the_wrong_order, part="split"),
    "file learnt before it is forecast": Leak(of_files, file_learnt_before_it_is_forecast, part="prediction"),
    "scaler of the regressor fitted on the file": Leak(of_files, scaler_of_the_regressor_fitted_on_the_file, part="prediction"),
    "forecast of the row it is judged by": Leak(of_files, forecast_of_the_row_it_is_judged_by, part="prediction"),
    "forecast learnt in the order of play": Leak(of_files, learnt_in_the_order_of_play, part="prediction"),
    "filled at the open of the bar that was seen": Leak(of_files, lambda patch: filled_at(patch, "open"), ("changed future", "fair game")),
    "filled at the close that was seen": Leak(of_files, lambda patch: filled_at(patch, "close"), part="fill"),
    "bought at the low and sold at the high": Leak(lambda folder: simulated(), bought_low_and_sold_high, ("fair game",)),
    "stopped at the stop though it gapped": Leak(lambda folder: of_files(folder, rules=LIMITS), stopped_at_the_stop, part="fill"),
    "limit filled at the best price": Leak(lambda folder: simulated(**LIMITS), limits_at_the_best_price, ("fair game",)),
    "limit reached by the bar before": Leak(lambda folder: simulated(**LIMITS), limits_reached_by_the_bar_before, ("changed future",)),
    "filled in a bar that had begun": Leak(of_two_lengths, filled_in_a_bar_that_had_begun, part="had begun"),
    "limit on risk sees the bar that fills": Leak(
        lambda folder: simulated(risk=(own("NoFallingKnife"),)), bar_set_before_the_orders_fill, ("fair game",)
    ),
    "observer one bar ahead": Leak(with_own("Precomputed", bars_later=1), whole_episodes, ("changed future", "fair game")),
    "observer whose index wraps around": Leak(with_own("Precomputed", wraps=True), whole_episodes, part="move"),
    "share of the episode's highest": Leak(with_own("ShareOfHighest"), whole_episodes, ("changed future",)),
    "reward of the bar to come": Leak(with_own("ForwardReturn"), whole_episodes, part="reward"),
    "end before a crash": Leak(with_own("BeforeTheCrash"), whole_episodes, part="end"),
    "limit on risk knows the next bar": Leak(with_own("CalmBars"), whole_episodes),
    "running scaler that outlives its episode": Leak(
        lambda folder: of_files(folder, rules={"observers": (own("RunningScore", forgets=False),)}), part="score"
    ),
    "memory longer than the warm-up": Leak(with_own("AboveSmoothed"), found_by=("warm-up",), part="above"),
    "simulated returns centred over the path": Leak(lambda folder: simulated(), returns_centred_over_the_path, part="price: close"),
    "simulated volume beside the whole path": Leak(
        lambda folder: simulated(observers=({"name": "indicator", "kind": "balance_of_volume"},)),
        volume_beside_the_range_of_the_whole_path,
        part="balance_of_volume",
    ),
    "warm-up one bar too long": Leak(lambda folder: simulated(), warm_up_one_bar_too_long),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files")
    write_files(made)
    return made


def faults_of(config: PipelineConfig, names: Collection[str], cuts: int = 6) -> dict[str, list[str]]:
    """What each of the checks with these names finds."""
    made = zip(("changed future", "fair game", "warm-up"), check_future.checks(config, episodes=8, cuts=cuts), strict=True)
    results = [check() for name, check in made if name in names]
    return {result.check: [fault.line() for fault in result.faults] for result in results}


@pytest.mark.parametrize("name", LEAKS)
def test_the_check_finds_the_leak(name: str, folder: Path, monkeypatch: Patch) -> None:
    leak = LEAKS[name]
    monkeypatch.setattr(check_future, "_FAIR_BARS", 2000)
    leak.plant(monkeypatch)
    found = faults_of(leak.settings(folder), leak.found_by)
    assert all(found.values()), found
    assert any(leak.part in line for line in found[leak.found_by[0]]), found


CONTROLS: dict[str, Settings] = {
    "feature": with_news,
    "resampled": lambda folder: with_news(folder, source={"resample": ResampleConfig("20min")}, bars_per_episode=20),
    "two symbols": lambda folder: of_files(folder, "AC", symbols_per_episode=2, rules={"actions": "simplex_weights"}),
    "two lengths": of_two_lengths,
    "anchored at the first bar": lambda folder: level(folder, "first"),
    "divided": divided,
    "volume": volume_seen,
    "limit orders": lambda folder: of_files(folder, rules=LIMITS),
    "whole episodes": lambda folder: simulated(
        observers=(own("Precomputed"), own("RunningScore")),
        rewards=(own("ForwardReturn", bars_later=0),),
        ends=(own("BeforeTheCrash", bars_later=0),),
        risk=(own("CalmBars", bars_later=0), own("NoFallingKnife")),
    ),
}
"""The same parts without the mistakes."""


@pytest.mark.parametrize("name", CONTROLS)
def test_the_same_parts_without_a_mistake_are_no_fault(name: str, folder: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(check_future, "_FAIR_BARS", 1000)
    feature(monkeypatch, expanding_score)
    whole_episodes(monkeypatch)
    found = faults_of(CONTROLS[name](folder), ("changed future", "fair game", "warm-up"), cuts=3)
    assert not any(found.values()), found
