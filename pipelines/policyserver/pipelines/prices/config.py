"""Settings of the prices that episodes are played on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt

from policyserver.common.settings import Config, SettingsError
from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.market.processes import PROCESSES, PriceProcess
from policyserver.pipelines.market.registry import Choice

_LONGEST_EPISODE_S = 6e9
"""190 years: times are counted in nanoseconds up to the year 2262."""

RECORDED = "recorded"
"""What stands in the place of a process's name where bars are recorded."""


@dataclass(frozen=True, slots=True)
class PricesConfig(Config):
    """Which prices an episode is played on: simulated ones, or windows of recorded ones."""

    process: Choice = "ou"
    """The law of simulated prices, by its name or a table of its name and settings; `policy-pipeline processes` lists them."""
    recorded: CatalogConfig | None = None
    """Files of bars, which are traded in place of simulated prices; none: prices are simulated."""
    symbols: tuple[str, ...] = ("AAA", "BBB", "CCC", "DDD")
    """Symbols of simulated prices; those of recorded ones are the files'."""
    symbols_per_episode: Annotated[int, Ge(1)] = 1
    """Symbols that an episode trades at once; episode n has the next ones after episode n - 1, round and round."""
    bars_per_episode: Annotated[int, Ge(1)] = 200
    """Bars after the warm-up: the number of actions in an episode."""
    warmup_bars: Annotated[int, Ge(1)] = 200
    """Bars seen before and at the first action, at least 1."""
    steps_per_bar: Annotated[int, Ge(1)] = 4
    """Sub-steps a simulated bar is made of."""
    bar_interval_s: Annotated[float, Gt(0)] = 60.0
    """Length of a simulated bar in seconds."""

    def _check(self) -> None:
        if self.recorded is not None:
            if self.process != "ou":
                raise ValueError(f"process: expected none beside recorded bars, received {self.process!r}")
            if self.symbols_per_episode != 1:
                raise ValueError(f"symbols_per_episode: expected 1 with recorded bars, received {self.symbols_per_episode}")
            return
        if self.bar_interval_s * self.n_bars > _LONGEST_EPISODE_S:
            raise ValueError(f"bar_interval_s: expected {self.n_bars} bars within {_LONGEST_EPISODE_S:g} s, received {self.bar_interval_s}")
        if not self.symbols or len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"symbols: expected different names, at least one, received {self.symbols}")
        if self.symbols_per_episode > len(self.symbols):
            raise ValueError(f"symbols_per_episode: expected at most the {len(self.symbols)} symbols, received {self.symbols_per_episode}")
        self.make_process()

    @property
    def n_bars(self) -> int:
        """Bars of an episode, warm-up included."""
        return self.warmup_bars + self.bars_per_episode

    @property
    def name(self) -> str:
        """What the prices are called in records: the name of the process, or `RECORDED`."""
        if self.recorded is not None:
            return RECORDED
        return self.process if isinstance(self.process, str) else str(self.process["name"])

    def make_process(self) -> PriceProcess:
        """Return the process of simulated prices.

        Raises:
            SettingsError: Its name is unknown, a setting of it is, or its prices could leave what a price can be.
        """
        process = PROCESSES.make(self.process, "process")
        if process.rows_per_episode not in (1, self.symbols_per_episode):
            expected = f"{process.rows_per_episode}, the assets of the process"
            raise SettingsError("symbols_per_episode", "", f"expected {expected}, received {self.symbols_per_episode}")
        try:
            process.check(self.n_bars)
        except ValueError as error:
            raise ValueError(f"process.{error}") from error
        return process


def make_slots(config: PricesConfig) -> tuple[str, ...]:
    """Return what the symbols of an episode are called in observations: their own names where every episode has the same ones."""
    count = config.symbols_per_episode
    if count == 1:
        return ("price",)
    return config.symbols if count == len(config.symbols) else tuple(f"price_{place}" for place in range(1, count + 1))
