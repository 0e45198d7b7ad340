"""Files of recorded bars for tests, and pipelines that play on them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from policyserver.pipelines.config import PipelineConfig, PlayedEpisodesConfig
from policyserver.pipelines.forecast.regressor import RegressorConfig
from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.market.instruments import InstrumentConfig
from policyserver.pipelines.market.rules import RulesConfig
from policyserver.pipelines.prices import PricesConfig

FIRST_BAR_S = 1_577_836_800
"""2020-01-01T00:00:00Z."""

TREE = RegressorConfig(model={"name": "river.tree.HoeffdingTreeRegressor", "grace_period": 50})
"""Remembers what it has seen far better than a line does."""


def fair_game(bars: int, seed: int, volatility: float = 0.01) -> FloatArray:
    """Closes of geometric Brownian motion without drift: nobody who sees the past alone can earn anything."""
    returns = volatility * np.random.default_rng(seed).standard_normal(bars) - volatility**2 / 2
    return 100.0 * np.exp(np.cumsum(returns))


def write_columns(path: Path, **columns: FloatArray) -> Path:
    """Write bars of one minute as they are, digit by digit; a column that isn't given is the close."""
    names = ("open", "high", "low", "close", "volume")
    values = zip(*(columns.get(name, columns["close"]).tolist() for name in names), strict=True)
    rows = [f"{FIRST_BAR_S + 60 * number},{','.join(map(repr, row))}" for number, row in enumerate(values)]
    path.write_text("\n".join([f"time,{','.join(names)}", *rows]) + "\n", encoding="utf-8")
    return path


def write_bars(path: Path, closes: FloatArray, bar_s: int = 60) -> Path:
    """Write bars, of one minute by default, each opening at the close before it."""
    opens = np.concatenate((closes[:1], closes[:-1]))
    rows = [
        f"{FIRST_BAR_S + bar_s * number},{open_!r},{max(open_, close)!r},{min(open_, close)!r},{close!r},1"
        for number, (open_, close) in enumerate(zip(opens.tolist(), closes.tolist(), strict=True))
    ]
    path.write_text("\n".join(["time,open,high,low,close,volume", *rows]) + "\n", encoding="utf-8")
    return path


def index_series(name: str) -> Path:
    """The file of a real daily index series that comes with the package arch."""
    spec = importlib.util.find_spec(f"arch.data.{name}")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name(f"{name}.csv.gz")


def catalog_of(*files: Path) -> CatalogConfig:
    """These files, as they show themselves."""
    return CatalogConfig(tuple(map(str, files)))


def file_config(*files: Path, concurrent: int, steps: int, bars: int, warmup: int, regressor: RegressorConfig) -> PipelineConfig:
    """A pipeline on files, without costs."""
    return PipelineConfig(
        seed=3,
        episodes=PlayedEpisodesConfig(concurrent=concurrent, steps=steps),
        prices=PricesConfig(recorded=catalog_of(*files), bars_per_episode=bars, warmup_bars=warmup),
        rules=RulesConfig(instrument=InstrumentConfig(fee_fraction=0.0, slippage_fraction=0.0)),
        regressor=regressor,
        stop_timeout_s=10.0,
    )
