"""Prices that can't be are refused by the dotted key of the setting, before anything is drawn or read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from policyserver.common.settings import SettingsError, dump_toml, from_table, load
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.market.files.config import FilesConfig
from policyserver.pipelines.market.files.dialect import Dialect
from policyserver.pipelines.market.processes import PROCESSES
from policyserver.pipelines.prices import PricesConfig


def prior(low: float, high: float | None = None) -> dict[str, float]:
    return {"low": low, "high": low if high is None else high}


OWN = Dialect(delimiter=";", decimal=",", time=("Datum", "Uhrzeit"), time_zone="Europe/Berlin", stamp="start")
SERIES = {"name": "correlated", "correlation": [[1.0, 0.5], [0.5, 1.0]]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"warmup_bars": -1}, "warmup_bars: expected at least 0, received -1"),
        ({"bars_per_episode": 0}, "bars_per_episode: expected at least 1, received 0"),
        ({"steps_per_bar": 0}, "steps_per_bar: expected at least 1, received 0"),
        ({"bar_interval_s": 0.0}, "bar_interval_s: expected more than 0, received 0"),
        ({"bar_interval_s": math.nan}, "bar_interval_s: expected"),
        ({"bar_interval_s": 1e300}, "bar_interval_s: expected 400 bars within 6e+09 s, received 1e+300"),
        ({"process": "cir"}, "process.name: expected ou, gbm, abm, merton, heston, garch, regimes, bootstrap, correlated, mixture, or"),
        ({"process": {"volatility": prior(1.0)}}, "process.name: expected ou, gbm, "),
        ({"process": "python:nowhere.Law"}, "process.name: expected an import path, received 'python:nowhere.Law'"),
        ({"process": "python:pathlib.Path"}, "process.name: expected a frozen dataclass that derives from PriceProcess"),
        ({"process": {"name": "gbm", "drift": prior(0.0)}}, "process.drift: unknown key"),
        ({"process": {"name": "gbm", "volatility": prior(-1.0, 0.1)}}, "process.volatility: expected more than 0, received"),
        ({"process": {"name": "gbm", "volatility": prior(1.0)}}, "process.volatility: expected at most"),
        ({"process": {"name": "gbm", "price_drift": prior(-9.0, 0.0)}}, "process.price_drift: expected at least"),
        ({"process": {"name": "ou", "reversion": prior(1e-12)}}, "process.volatility: expected at most"),
        ({"process": {"name": "mixture", "parts": [{"process": "cir"}]}}, "process.parts[0].process.name: expected ou, gbm, "),
        ({"symbols": ()}, "symbols: expected different names, at least one, received ()"),
        ({"symbols": ("A", "A")}, "symbols: expected different names, at least one, received ('A', 'A')"),
        ({"symbols_per_episode": 0}, "symbols_per_episode: expected at least 1, received 0"),
        ({"symbols_per_episode": 5}, "symbols_per_episode: expected at most the 4 symbols, received 5"),
        ({"process": SERIES}, "symbols_per_episode: expected 2, the assets of the process, received 1"),
        ({"recorded": {"paths": ["a.csv"]}, "process": "gbm"}, "process: expected none beside recorded bars, received 'gbm'"),
        ({"recorded": {"paths": ["a.csv"], "symbol_pattern": "("}}, "recorded.symbol_pattern: expected a regular expression"),
        ({"recorded": {"paths": ["a.csv"], "files": {"dialect": "x"}}}, "recorded.files.dialect: expected auto, plain, "),
        ({"recorded": {"paths": ["a.csv"], "files": {"mapping": {"time": []}}}}, "recorded.files.mapping.time: expected one column or two"),
        (
            {"recorded": {"paths": ["a.csv"], "files": {"faults": {"gap": "mend"}}}},
            "recorded.files.faults.gap: expected refuse|keep, received 'mend'",
        ),
    ],
)
def test_prices_that_cannot_be_are_refused_by_their_key(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        from_table(PipelineConfig, {"prices": arguments}, "pipeline.toml")
    assert str(refused.value).startswith(f"pipeline.toml: prices.{message}")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("name", [name for name in PROCESSES.shipped if name not in ("bootstrap", "correlated", "mixture")])
def test_every_process_is_chosen_by_its_name_alone(name: str) -> None:
    assert PricesConfig(process=name).name == name


@pytest.mark.parametrize(
    "prices",
    [
        PricesConfig(process={"name": "heston", "reversion": prior(0.05, 0.1)}),
        PricesConfig(process={"name": "mixture", "parts": [{"process": "ou", "weight": 2.0}, {"process": {"name": "gbm"}}]}),
        PricesConfig(process=SERIES, symbols=("AAA", "BBB"), symbols_per_episode=2),
        PricesConfig(recorded=CatalogConfig(("data/*.csv",), files=FilesConfig(mapping=OWN))),
    ],
    ids=["table", "mixture", "correlated", "recorded"],
)
def test_what_is_written_into_a_run_folder_is_read_as_it_was(prices: PricesConfig, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(dump_toml(PipelineConfig(prices=prices)), encoding="utf-8")
    assert load(PipelineConfig, file).prices == prices


def test_recorded_bars_are_called_so_in_records() -> None:
    assert PricesConfig(recorded=CatalogConfig(("a.csv",))).name == "recorded"
    assert PricesConfig(process={"name": "gbm"}).name == "gbm"
