"""Files of bars with a column of their own, and the settings that play them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from policyserver.pipelines.config import PipelineConfig, PlayedEpisodesConfig
from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.market.files.config import FilesConfig
from policyserver.pipelines.market.rules import RulesConfig
from policyserver.pipelines.prices import PricesConfig

MONDAY_S = 1_704_067_200
"""2024-01-01T00:00:00Z, a Monday."""


def minutes(days: int, step: int = 10, first: int = 0, begin: int = 0, end: int = 1440) -> IntArray:
    """Times of bars on so many days, seconds since 1970: from one minute of each day to another."""
    of_day = np.arange(begin + step, end + 1, step)
    day = np.arange(first, first + days)
    return MONDAY_S + 60 * (1440 * day[:, None] + of_day).ravel()


def write_symbol(path: Path, times_s: IntArray, seed: int = 0, news: list[str] | None = None) -> Path:
    """Write bars that end at these times, each opening at the close before it; `news` is a further column."""
    rng = np.random.default_rng(seed)
    closes = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, len(times_s)))).round(12)
    opens = np.concatenate((closes[:1], closes[:-1]))
    rows = ["time,open,high,low,close,volume" + (",news" if news else "")]
    for row, time in enumerate(times_s.tolist()):
        prices = f"{opens[row]!r},{max(opens[row], closes[row])!r},{min(opens[row], closes[row])!r},{closes[row]!r}"
        rows.append(f"{time},{prices.replace('np.float64(', '').replace(')', '')},{1 + row % 3}" + (f",{news[row]}" if news else ""))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def recorded(folder: Path, *, columns: tuple[str, ...] = (), calendar: str = "", **catalog: Any) -> CatalogConfig:
    """The files of a folder."""
    return CatalogConfig((str(folder),), files=FilesConfig(columns=columns, calendar=calendar), **catalog)


def pipeline(
    prices: PricesConfig, rules: RulesConfig | None = None, *, concurrent: int = 4, steps: int = 400, **episodes: Any
) -> PipelineConfig:
    """A pipeline on these prices."""
    return PipelineConfig(
        seed=3,
        episodes=PlayedEpisodesConfig(concurrent=concurrent, steps=steps, **episodes),
        prices=prices,
        rules=rules or RulesConfig(),
        stop_timeout_s=10.0,
    )
