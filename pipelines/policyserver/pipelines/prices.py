"""Price sources: where an episode's bars come from. The same interface serves simulated and recorded prices.

    source = make_source(PricesConfig(process="ou"), seed=1)
    episodes = source.episodes(range(64))

An episode is a function of (seed, symbol, number) alone: threads and their order change nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
from annotated_types import Ge, Gt

from policyserver.common.settings import Config
from policyserver.pipelines.csv_bars import read_csv_bars
from policyserver.pipelines.market.bars import FloatArray, History
from policyserver.pipelines.market.episode_source import Episode, EpisodeSource
from policyserver.pipelines.market.feed import EpisodeBars
from policyserver.pipelines.price_processes import GbmConfig, LogPathProcess, OuConfig, bars_from_path

START_TIME_NS = 1_577_836_800_000_000_000
"""Start of every simulated path: 2020-01-01T00:00:00Z."""

_LONGEST_EPISODE_S = 6e9
"""190 years: times are counted in nanoseconds up to the year 2262."""


class PriceSource(EpisodeSource, Protocol):
    """A source whose symbols are known. Thread-safe.

    Episodes of which one may have bars that lie in another's future name the `History` that they are windows of: what learns from one
    episode and forecasts in another then keeps to the history's own time.
    """

    @property
    def symbols(self) -> tuple[str, ...]:
        """All symbols that there are; episode n trades number n modulo their count."""

    @property
    def is_recorded(self) -> bool:
        """Whether episodes are windows of histories."""


@dataclass(frozen=True, slots=True)
class PricesConfig(Config):
    """Which prices an episode is played on."""

    process: Literal["ou", "gbm", "csv"] = "ou"
    """`ou` and `gbm` are simulated, `csv` is read from `csv_files`."""
    symbols: tuple[str, ...] = ("AAA", "BBB", "CCC", "DDD")
    """Symbols of simulated prices; with `csv` the symbols are the files' names, without .csv, .txt, .tsv or .dat, and .gz at their end."""
    bars_per_episode: Annotated[int, Ge(1)] = 200
    """Bars after the warm-up: the number of actions in an episode."""
    warmup_bars: Annotated[int, Ge(1)] = 200
    """Bars seen before and at the first action, at least 1."""
    steps_per_bar: Annotated[int, Ge(1)] = 4
    """Sub-steps a simulated bar is made of."""
    bar_interval_s: Annotated[float, Gt(0)] = 60.0
    """Length of a simulated bar in seconds."""
    ou: OuConfig = field(default_factory=OuConfig)
    """Priors of the Ornstein-Uhlenbeck process."""
    gbm: GbmConfig = field(default_factory=GbmConfig)
    """Priors of geometric Brownian motion."""
    csv_files: tuple[Path, ...] = ()
    """Files of OHLCV bars, plain or .gz: one symbol each, and no two of one name."""

    def _check(self) -> None:
        n_bars = self.warmup_bars + self.bars_per_episode
        if self.bar_interval_s * n_bars > _LONGEST_EPISODE_S:
            raise ValueError(f"bar_interval_s: expected {n_bars} bars within {_LONGEST_EPISODE_S:g} s, received {self.bar_interval_s}")
        if self.process == "csv" and not self.csv_files:
            raise ValueError("csv_files: expected at least one file with process csv, received none")
        if self.process != "csv" and (not self.symbols or len(set(self.symbols)) != len(self.symbols)):
            raise ValueError(f"symbols: expected different names, at least one, received {self.symbols}")
        if self.process != "csv":
            try:
                (self.ou if self.process == "ou" else self.gbm).check(n_bars)
            except ValueError as error:
                raise ValueError(f"{self.process}.{error}") from error
        named: dict[str, Path] = {}
        for path in self.csv_files:
            if (symbol := symbol_of(path)) in named:
                raise ValueError(f"csv_files: expected files of different symbols, received {named[symbol]} and {path}, both {symbol}")
            named[symbol] = path


def symbol_of(path: Path) -> str:
    """Return the symbol that a file of bars is named after: BRK.A for BRK.A.csv.gz, for a dot may belong to the symbol."""
    return re.sub(r"(?<=.)(\.(csv|txt|tsv|dat))?(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def make_source(config: PricesConfig, seed: int) -> PriceSource:
    """Return the source that `config` describes.

    Raises:
        ValueError: a CSV file is malformed or too short; the message names file and line.
        OSError: a CSV file can't be read.
    """
    if config.process == "csv":
        return CsvSource(config, seed)
    return SimulatedSource(config.ou if config.process == "ou" else config.gbm, config, seed)


def episode_rng(seed: int, symbol: str, episode_index: int, purpose: str = "prices") -> np.random.Generator:
    """Return the generator that belongs to one episode and purpose, whatever was drawn elsewhere."""
    key = int.from_bytes(hashlib.sha256(f"{purpose}/{symbol}".encode()).digest()[:8])
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(key, episode_index)))


SLOTS = ("price",)
"""What the one symbol of an episode is called in observations: which one it is differs from episode to episode."""


class SimulatedSource:
    """Bars simulated from a process, each episode with its own parameters and path."""

    is_recorded = False

    def __init__(self, process: LogPathProcess, config: PricesConfig, seed: int) -> None:
        """Simulate `process` in episodes of the size that `config` names."""
        self._process = process
        self._config = config
        self._seed = seed

    @property
    def symbols(self) -> tuple[str, ...]:
        """The configured symbols."""
        return self._config.symbols

    @property
    def slots(self) -> tuple[str, ...]:
        """See `EpisodeSource`."""
        return SLOTS

    def episodes(self, numbers: Sequence[int]) -> list[Episode]:
        """Draw the parameters and simulate the whole paths at once."""
        return [self._episode(number) for number in numbers]

    def _episode(self, number: int) -> Episode:
        config = self._config
        symbol = self.symbols[number % len(self.symbols)]
        rng = episode_rng(self._seed, symbol, number)
        parameters = self._process.draw_parameters(rng)
        n_bars = config.warmup_bars + config.bars_per_episode
        path = self._process.log_path(rng, parameters, n_bars * config.steps_per_bar, config.steps_per_bar)
        bars = bars_from_path(rng, path, config.steps_per_bar, START_TIME_NS, int(config.bar_interval_s * 1e9))
        return Episode((symbol,), number, EpisodeBars(bars.time_ns, bars.columns(), config.warmup_bars, parameters))


class CsvSource:
    """Windows of recorded bars, their starts drawn by the seed."""

    is_recorded = True

    def __init__(self, config: PricesConfig, seed: int) -> None:
        """Read every file at once.

        Raises:
            ValueError: a file is malformed or shorter than an episode.
        """
        self._config = config
        self._seed = seed
        self._histories: dict[str, History] = {}
        self._columns: dict[str, FloatArray] = {}
        needed = config.warmup_bars + config.bars_per_episode
        for path in config.csv_files:
            bars = read_csv_bars(path)
            if len(bars) < needed:
                raise ValueError(f"{path}: expected at least warmup_bars + bars_per_episode = {needed} bars, received {len(bars)}")
            self._histories[symbol_of(path)] = History(bars, needed)
            self._columns[symbol_of(path)] = bars.columns()

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that the files are named after."""
        return tuple(self._histories)

    @property
    def slots(self) -> tuple[str, ...]:
        """See `EpisodeSource`."""
        return SLOTS

    def episodes(self, numbers: Sequence[int]) -> list[Episode]:
        """Cut the episodes' windows."""
        return [self._episode(number) for number in numbers]

    def _episode(self, number: int) -> Episode:
        symbol = self.symbols[number % len(self.symbols)]
        history = self._histories[symbol]
        start = int(episode_rng(self._seed, symbol, number).integers(len(history.bars) - history.window_bars + 1))
        stop = start + history.window_bars
        window = EpisodeBars(
            history.bars.time_ns[start:stop],
            self._columns[symbol][start:stop],
            self._config.warmup_bars,
            {"first_row": float(start)},
        )
        return Episode((symbol,), number, window, {symbol: history}, start)
