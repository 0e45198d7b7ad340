"""Small pipelines to be checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from policyserver.pipelines.audit.changed_future import check_changed_future
from policyserver.pipelines.audit.fair_game import check_fair_game
from policyserver.pipelines.audit.findings import CheckResult
from policyserver.pipelines.audit.warm_up import check_warm_up
from policyserver.pipelines.config import PipelineConfig, PlayedEpisodesConfig
from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.market.rules import RulesConfig
from policyserver.pipelines.prices import PricesConfig

FIRST_BAR_S = 1_577_836_800
"""2020-01-01T00:00:00Z."""


def small(*, concurrent: int = 8, files: tuple[Path, ...] = (), prices: dict[str, Any] | None = None, **rules: Any) -> PipelineConfig:
    """Return a pipeline of few and short episodes, on files if there are some."""
    recorded = CatalogConfig(tuple(map(str, files))) if files else None
    return PipelineConfig(
        seed=5,
        worker_number=0,
        episodes=PlayedEpisodesConfig(concurrent=concurrent),
        prices=PricesConfig(**{"recorded": recorded, "bars_per_episode": 40, "warmup_bars": 64} | (prices or {})),
        rules=RulesConfig(**rules),
        stop_timeout_s=10.0,
    )


def seen(config: PipelineConfig, observer: str | dict[str, Any]) -> PipelineConfig:
    """Return the pipeline with one observer more."""
    return replace(config, rules=replace(config.rules, observers=(*config.rules.observers, observer)))


def changed_future(config: PipelineConfig, cuts: int = 4) -> CheckResult:
    """Check the first round."""
    return check_changed_future(config, range(config.episodes.concurrent), config.episodes.concurrent, cuts)


def fair_game(config: PipelineConfig, bars: int = 6_000) -> CheckResult:
    """Check as many episodes as have so many bars."""
    return check_fair_game(config, range(-(-bars // config.prices.bars_per_episode)), config.episodes.concurrent)


def warm_up(config: PipelineConfig) -> CheckResult:
    """Check the first round."""
    return check_warm_up(config, range(config.episodes.concurrent), config.episodes.concurrent)


def write_bars(path: Path, bars: int, seed: int, *, interval_s: int = 60, volatility: float = 0.004, **columns: Any) -> Path:
    """Write bars of a random walk with gaps, ranges and volumes, and further columns, a value for each bar."""
    rng = np.random.default_rng(seed)
    gaps, moves = 0.3 * volatility * rng.standard_normal(bars), volatility * rng.standard_normal(bars)
    closes = 100.0 * np.exp(np.cumsum(gaps + moves))
    opens = closes / np.exp(moves)
    highs = np.maximum(opens, closes) * np.exp(0.5 * volatility * rng.random(bars))
    lows = np.minimum(opens, closes) * np.exp(-0.5 * volatility * rng.random(bars))
    times = FIRST_BAR_S + interval_s * np.arange(1, bars + 1)
    table = {"time": times, "open": opens, "high": highs, "low": lows, "close": closes, "volume": rng.integers(100, 1000, bars), **columns}
    rows = [",".join(map(repr, row)) for row in zip(*(np.asarray(values).tolist() for values in table.values()), strict=True)]
    path.write_text("\n".join([",".join(table), *rows]).replace("nan", "") + "\n", encoding="utf-8")
    return path


def dividend_file(path: Path, bars: int, seed: int) -> Path:
    """Write daily bars as yfinance does, with a dividend every 50 bars."""
    lines = write_bars(path, bars, seed, interval_s=86_400).read_text(encoding="utf-8").splitlines()[1:]
    rows = ["Date,Open,High,Low,Close,Adj Close,Volume,Dividends,Stock Splits"]
    for place, line in enumerate(lines):
        time, *prices, volume = line.split(",")
        date = np.datetime64(int(time), "s").astype("M8[D]")
        rows.append(f"{date},{','.join(prices)},{prices[-1]},{volume},{0.5 if place % 50 == 49 else 0.0},0.0")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def parts(result: CheckResult) -> str:
    """Return the parts at fault as one text."""
    return "\n".join(fault.part for fault in result.faults)
