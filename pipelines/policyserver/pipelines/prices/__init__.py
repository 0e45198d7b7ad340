"""Where the prices of episodes come from: simulated, or windows of recorded bars; the same interface serves both.

    source = make_source(PricesConfig(process="heston"), seed=1)
    episodes = source.episodes(range(64))

An episode is a function of (seed, symbols, number) alone: threads and their order change nothing. Imports the market.

Imports `common.settings`, `pipelines.market` and `pipelines.market.processes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from policyserver.pipelines.market.annualisation import Annualisation
from policyserver.pipelines.market.episode_source import EpisodeSource
from policyserver.pipelines.market.split import Reach
from policyserver.pipelines.prices.change import PriceChange
from policyserver.pipelines.prices.config import PricesConfig
from policyserver.pipelines.prices.recorded import RecordedSource
from policyserver.pipelines.prices.simulated import SimulatedSource

__all__ = ["PriceSource", "PricesConfig", "make_source"]

_NEXT_BAR = Reach(1)


class PriceSource(EpisodeSource, Protocol):
    """A source whose symbols are known. Thread-safe.

    Episodes of which one may have bars that lie in another's future name the `History` that they are windows of: what learns from one
    episode and forecasts in another then keeps to the history's own time.
    """

    @property
    def symbols(self) -> tuple[str, ...]:
        """All symbols that there are, each of which has its turn."""

    @property
    def notes(self) -> tuple[str, ...]:
        """How many windows there are of each symbol, and how many are left out and why; none where prices are simulated."""

    @property
    def n_windows(self) -> int:
        """Windows of all symbols, each of which is played once in a round in the order of time; 0 where prices are simulated."""

    @property
    def annualisations(self) -> Mapping[str, Annualisation]:
        """By what an episode trades, joined by "+", the bars of a year."""

    @property
    def bar_intervals_ns(self) -> Mapping[str, int]:
        """By symbol, the usual time from one bar to the next, nanoseconds; symbols without a usual one are left out."""

    @property
    def is_recorded(self) -> bool:
        """Whether episodes are windows of histories."""


def make_source(config: PricesConfig, seed: int, *, reach: Reach = _NEXT_BAR, change: PriceChange | None = None) -> PriceSource:
    """Return the source that `config` describes.

    Args:
        config: The prices.
        seed: Of the episodes.
        reach: How far a decision looks back and ahead: the warm-up where `config` leaves it open, and the purge of a split.
        change: Changes the prices, to find out what depends on them; None: they stay as they are.

    Raises:
        SettingsError: A symbol has no window, or a setting doesn't fit the files.
        ValueError: A file is malformed or too short; the message names file and line.
        OSError: A file can't be read.
    """
    make = SimulatedSource if config.recorded is None else RecordedSource
    return make(config, seed, reach, change)
