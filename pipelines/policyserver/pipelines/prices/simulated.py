"""Episodes simulated from a process, each with parameters and paths of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from policyserver.pipelines.market.annualisation import Annualisation, by_calendar
from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.calendars import BUILT_IN
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.feed import EpisodeBars
from policyserver.pipelines.market.frames import asked
from policyserver.pipelines.market.history import FIELDS
from policyserver.pipelines.market.processes.process import draw_bars
from policyserver.pipelines.market.split import Reach
from policyserver.pipelines.prices.change import PriceChange
from policyserver.pipelines.prices.config import PricesConfig, make_slots
from policyserver.pipelines.prices.episode_rng import episode_rng

START_TIME_NS = 1_577_836_800_000_000_000
"""Start of every simulated path: 2020-01-01T00:00:00Z."""


class SimulatedSource:
    """Bars of a process. See `PriceSource`."""

    is_recorded = False
    columns = ()
    notes = ()
    n_windows = 0

    def __init__(self, config: PricesConfig, seed: int, reach: Reach, change: PriceChange | None = None) -> None:
        """Simulate episodes of the process and size that `config` names, changed by `change`."""
        self._warmup_bars = warmup = config.warmup_bars or reach.window_bars
        config = self._config = replace(config, warmup_bars=warmup)
        self._process = config.make_process()
        self._seed = seed
        self._change = change
        interval_ns = int(config.bar_interval_s * 1e9)
        self._time_ns = START_TIME_NS + interval_ns * np.arange(1, config.n_bars + 1, dtype=np.int64)
        self._asks = asked(self._time_ns, None, warmup, config.decide, config.deadline_ns, config.skip_frame)

    @property
    def symbols(self) -> tuple[str, ...]:
        """See `PriceSource`."""
        return self._config.symbols

    @property
    def slots(self) -> tuple[str, ...]:
        """See `EpisodeSource`."""
        return make_slots(self._config)

    @property
    def annualisations(self) -> Mapping[str, Annualisation]:
        """See `PriceSource`. Simulated markets are always open."""
        year = by_calendar(BUILT_IN["24/7"], int(self._config.bar_interval_s * 1e9))
        return {"+".join(self._symbols_of(number)): year for number in range(len(self.symbols))}

    @property
    def bar_intervals_ns(self) -> Mapping[str, int]:
        """See `PriceSource`."""
        return dict.fromkeys(self.symbols, int(self._config.bar_interval_s * 1e9))

    def episodes(self, numbers: Sequence[int]) -> list[Episode]:
        """Draw the parameters of all episodes and simulate their whole paths at once."""
        config, k = self._config, self._config.symbols_per_episode
        traded = [self._symbols_of(number) for number in numbers]
        generators = [rng for symbols, number in zip(traded, numbers, strict=True) for rng in self._generators(symbols, number)]
        drawn, rows = draw_bars(self._process, generators, config.n_bars, config.steps_per_bar)
        columns: FloatArray = np.stack([getattr(rows, name) for name in FIELDS], axis=-1).reshape(
            len(numbers), k, config.n_bars, len(FIELDS)
        )
        parameters = [_named(symbols, drawn[k * place : k * (place + 1)]) for place, symbols in enumerate(traded)]
        if self._change is not None:
            changed = [self._change.drawn(number, bars) for number, bars in zip(numbers, columns.swapaxes(1, 2), strict=True)]
            columns = np.stack(changed).swapaxes(1, 2)
        return [
            Episode(symbols, number, EpisodeBars(self._time_ns, bars, self._warmup_bars, of_process, self._asks))
            for symbols, number, bars, of_process in zip(traded, numbers, columns.swapaxes(1, 2), parameters, strict=True)
        ]

    def _generators(self, symbols: tuple[str, ...], number: int) -> list[np.random.Generator]:
        """Return a generator for each symbol of an episode."""
        own = [episode_rng(self._seed, symbol, number) for symbol in symbols]
        return own if self._change is None else self._change.generators(number, own, self._config.n_bars)

    def _symbols_of(self, number: int) -> tuple[str, ...]:
        """Return what an episode trades."""
        k, symbols = self._config.symbols_per_episode, self.symbols
        return tuple(symbols[(number * k + place) % len(symbols)] for place in range(k))


def _named(symbols: tuple[str, ...], drawn: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the parameters of an episode by name; of several symbols with theirs before it."""
    if len(symbols) == 1:
        return drawn[0]
    return {f"{symbol}.{name}": value for symbol, parameters in zip(symbols, drawn, strict=True) for name, value in parameters.items()}
