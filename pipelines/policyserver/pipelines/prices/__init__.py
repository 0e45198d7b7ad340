"""Where the prices of episodes come from: simulated, or windows of recorded bars; the same interface serves both.

    source = make_source(PricesConfig(process="heston"), seed=1)
    episodes = source.episodes(range(64))

An episode is a function of (seed, symbols, number) alone: threads and their order change nothing. Imports the market.
"""

from __future__ import annotations

from typing import Protocol

from policyserver.pipelines.market.episode_source import EpisodeSource
from policyserver.pipelines.prices.change import PriceChange
from policyserver.pipelines.prices.config import PricesConfig
from policyserver.pipelines.prices.recorded import RecordedSource
from policyserver.pipelines.prices.simulated import SimulatedSource

__all__ = ["PriceSource", "PricesConfig", "make_source"]


class PriceSource(EpisodeSource, Protocol):
    """A source whose symbols are known. Thread-safe.

    Episodes of which one may have bars that lie in another's future name the `History` that they are windows of: what learns from one
    episode and forecasts in another then keeps to the history's own time.
    """

    @property
    def symbols(self) -> tuple[str, ...]:
        """All symbols that there are, each of which has its turn."""

    @property
    def is_recorded(self) -> bool:
        """Whether episodes are windows of histories."""


def make_source(config: PricesConfig, seed: int, change: PriceChange | None = None) -> PriceSource:
    """Return the source that `config` describes, its prices changed by `change`.

    Raises:
        ValueError: A file is malformed or too short; the message names file and line.
        OSError: A file can't be read.
    """
    return SimulatedSource(config, seed, change) if config.recorded is None else RecordedSource(config, seed, change)
