"""Parameters that make no process, or paths beyond what a price can be, are refused with parameter, value and allowed range."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.common.settings import SettingsError
from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.market.files.config import FilesConfig
from policyserver.pipelines.market.files.faults import FaultPolicies
from policyserver.pipelines.market.processes import PROCESSES
from policyserver.pipelines.market.processes.bootstrap import StationaryBootstrap
from policyserver.pipelines.market.processes.correlated import Correlated
from policyserver.pipelines.market.processes.draws import Draws
from policyserver.pipelines.market.processes.path_bars import LogPaths
from tests.pipelines.recorded_prices import write_columns


def prior(low: float, high: float | None = None) -> dict[str, float]:
    return {"low": low, "high": low if high is None else high}


GBM = {"process": "gbm"}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"name": "gbm", "volatility": prior(-0.1, 0.1)}, "p.volatility: expected more than 0, received"),
        ({"name": "gbm", "start_price": prior(1e-300)}, "p.start_price: expected at least 1e-15 and at most 1e+15, received"),
        ({"name": "ou", "mean_price": prior(1e308)}, "p.mean_price: expected at least 1e-15 and at most 1e+15, received"),
        ({"name": "ou", "reversion": prior(0.0, 0.1)}, "p.reversion: expected more than 0 and at most 30, received"),
        ({"name": "merton", "jump_rate": prior(-1.0)}, "p.jump_rate: expected at least 0 and at most 100, received"),
        ({"name": "merton", "jump_std": prior(-0.1)}, "p.jump_std: expected at least 0, received"),
        ({"name": "heston", "correlation": prior(-1.2, 0.0)}, "p.correlation: expected at least -1 and at most 1, received"),
        ({"name": "heston", "variance_spread": prior(0.0, 3.0)}, "p.variance_spread: expected at least 0 and at most 2, received"),
        ({"name": "heston", "reversion": prior(0.0)}, "p.reversion: expected more than 0 and at most 1, received"),
        (
            {"name": "garch", "alpha": prior(0.1, 0.2), "beta": prior(0.8, 0.9)},
            "p.beta: expected less than 0.8 beside an alpha up to 0.2, so that the variance is stationary, received up to 0.9",
        ),
        ({"name": "garch", "degrees_of_freedom": prior(4.0)}, "p.degrees_of_freedom: expected more than 4 and at most 200, received"),
        ({"name": "garch", "innovations": "cauchy"}, "p.innovations: expected normal|t, received 'cauchy'"),
        ({"name": "regimes", "regimes": [{}], "transitions": [[1.0]]}, "p.regimes: expected at least 2, received 1"),
        ({"name": "regimes", "transitions": [[1.0, 0.0]]}, "p.transitions: expected 2 rows, one for each regime, received 1"),
        (
            {"name": "regimes", "transitions": [[0.9, 0.1], [0.1, 0.8, 0.1]]},
            "p.transitions[1]: expected 2 probabilities, one for each regime, received 3",
        ),
        (
            {"name": "regimes", "transitions": [[0.9, 0.1], [0.1, 0.8]]},
            "p.transitions[1]: expected a sum of 1, received 0.9 of [0.1, 0.8]",
        ),
        (
            {"name": "regimes", "transitions": [[0.9, 0.1], [1.1, -0.1]]},
            "p.transitions[1][0]: expected at least 0 and at most 1, received 1.1",
        ),
        (
            {"name": "regimes", "transitions": [[1.0, 0.0], [0.0, 1.0]]},
            "p.transitions: expected one set of regimes that the chain ends in, received several",
        ),
        ({"name": "correlated", "correlation": [[1.0]]}, "p.correlation: expected rows of at least 2 assets, received 1"),
        (
            {"name": "correlated", "correlation": [[1.0, 0.5], [0.5]]},
            "p.correlation[1]: expected 2 values, one for each asset, received 1",
        ),
        ({"name": "correlated", "correlation": [[1.0, 0.5], [0.5, 0.9]]}, "p.correlation[1][1]: expected 1, received 0.9"),
        ({"name": "correlated", "correlation": [[1.0, 0.5], [0.4, 1.0]]}, "p.correlation[1][0]: expected 0.5 as in [0][1], received 0.4"),
        (
            {"name": "correlated", "correlation": [[1.0, 1.5], [1.5, 1.0]]},
            "p.correlation[0][1]: expected at least -1 and at most 1, received 1.5",
        ),
        (
            {"name": "correlated", "correlation": [[1.0, 0.9, 0.9], [0.9, 1.0, -0.9], [0.9, -0.9, 1.0]]},
            "p.correlation[2][1]: expected 0.62 to 1 beside the values before it, so that the matrix is positive semi-definite, "
            "received -0.9",
        ),
        ({"name": "correlated"}, "p.correlation: expected a value, received none"),
        (
            {"name": "correlated", "correlation": [[1.0, 0.5], [0.5, 1.0]], "process": {"name": "mixture", "parts": [GBM]}},
            "p.process: expected a process with paths of one asset's log-price, received {'name': 'mixture'",
        ),
        ({"name": "mixture", "parts": []}, "p.parts: expected at least one, received none"),
        ({"name": "mixture", "parts": [GBM, {"process": "ou", "weight": 0}]}, "p.parts[1].weight: expected more than 0, received 0"),
        ({"name": "mixture", "parts": [GBM, {"process": "cir"}]}, "p.parts[1].process.name: expected ou, gbm, abm, merton, heston"),
        (
            {"name": "mixture", "parts": [GBM, {"process": {"name": "ou", "volatility": prior(-1.0)}}]},
            "p.parts[1].process.volatility: expected more than 0, received",
        ),
        (
            {"name": "mixture", "parts": [{"process": {"name": "correlated", "correlation": [[1.0, 0.0], [0.0, 1.0]]}}]},
            "p.parts[0].process: expected a process of one asset, received 2",
        ),
        ("bootstrap", "p.recorded: expected a value, received none"),
    ],
)
def test_what_makes_no_process_is_refused(choice: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        PROCESSES.make(choice, "p")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            {"name": "gbm", "volatility": prior(0.5, 2.0)},
            r"volatility: expected at most 0\.69\d*, for prices from 1e-100 to 1e\+100 in 400 bars, received 2",
        ),
        ({"name": "gbm", "price_drift": prior(-0.9, 0.1)}, r"price_drift: expected at least -0\.5\d*, .* received -0\.9"),
        ({"name": "abm", "volatility": prior(0.02)}, r"volatility: expected at most 0\.0055\d*, .* received 0\.02"),
        ({"name": "abm", "price_drift": prior(-0.01, 0.0)}, r"price_drift: expected at least -0\.00\d*, .* received -0\.01"),
        ({"name": "ou", "volatility": prior(9.0)}, r"volatility: expected at most 7\.\d*, .* received 9"),
        ({"name": "merton", "jump_std": prior(5.0)}, r"jump_std: expected at most [01]\.\d*, .* received 5"),
        ({"name": "merton", "jump_mean": prior(-4.0, 0.0)}, r"jump_mean: expected at least -[01]\.\d*, .* received -4"),
        ({"name": "heston", "volatility": prior(1.0)}, r"volatility: expected at most 0\.\d*, .* received 1"),
        ({"name": "heston", "start_volatility": prior(1.0)}, r"start_volatility: expected at most 0\.\d*, .* received 1"),
        ({"name": "garch", "volatility": prior(2.0)}, r"volatility: expected at most 0\.\d*, .* received 2"),
        (
            {"name": "regimes", "regimes": [{}, {"volatility": prior(2.0)}]},
            r"regimes\[1\]\.volatility: expected at most 0\.\d*, .* received 2",
        ),
        (
            {"name": "regimes", "regimes": [{"price_drift": prior(0.5)}, {"volatility": prior(0.6)}]},
            r"regimes\[0\]\.price_drift: expected at most 0\.\d*, .* received 0\.5",
        ),
        (
            {"name": "correlated", "correlation": [[1.0, 0.5], [0.5, 1.0]], "process": {"name": "gbm", "volatility": prior(2.0)}},
            r"process\.volatility: expected at most",
        ),
        (
            {"name": "mixture", "parts": [GBM, {"process": {"name": "gbm", "volatility": prior(2.0)}}]},
            r"parts\[1\]\.process\.volatility: expected at most",
        ),
    ],
)
def test_paths_that_could_leave_what_a_price_can_be_are_refused(choice: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        PROCESSES.make(choice, "p").check(400)


def test_the_value_that_is_named_as_allowed_is_allowed() -> None:
    process = PROCESSES.make({"name": "gbm", "volatility": prior(2.0)}, "p")
    with pytest.raises(ValueError, match="at most") as refused:
        process.check(1000)
    allowed = float(str(refused.value).split("at most ")[1].split(",")[0])
    PROCESSES.make({"name": "gbm", "volatility": prior(allowed)}, "p").check(1000)
    with pytest.raises(ValueError, match="at most"):
        PROCESSES.make({"name": "gbm", "volatility": prior(allowed * 1.01)}, "p").check(1000)


@pytest.mark.parametrize("name", [name for name in PROCESSES.shipped if name not in ("bootstrap", "correlated", "mixture")])
def test_the_defaults_are_allowed_in_episodes_of_400_bars(name: str) -> None:
    PROCESSES.make(name, "p").check(400)
    if name == "garch":
        PROCESSES.make({"name": name, "innovations": "t"}, "p").check(400)


KEPT = FilesConfig(faults=FaultPolicies(price="keep", inconsistent="keep", split="keep"))


def recorded(folder: Path, closes: list[float], **columns: list[float]) -> CatalogConfig:
    """Files whose faults are kept where a policy allows it."""
    file = write_columns(folder / "AAA.csv", close=np.array(closes), **{name: np.array(column) for name, column in columns.items()})
    return CatalogConfig((str(file),), files=KEPT)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"closes": [1.0]}, "recorded: expected at least 2 bars of AAA, received 1"),
        (
            {"closes": [1.0, 0.0, 2.0]},
            "recorded: expected 0 < low <= open, close <= high and volume >= 0 in bar 1 of AAA, received {'open': 0.0",
        ),
        ({"closes": [1.0, 2.0], "high": [1.0, 1.5]}, "recorded: expected 0 < low <= open, close <= high and volume >= 0 in bar 1 of AAA"),
        ({"closes": [1.0, 2.0], "volume": [-1.0, 1.0]}, "AAA.csv, line 2, column volume: expected"),
    ],
)
def test_recorded_bars_that_are_none_are_refused_by_row(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        StationaryBootstrap(recorded(tmp_path, **columns))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recorded": {}}, "p.recorded.paths: expected files, folders or patterns, received none"),
        (
            {"recorded": {"paths": ["none.csv"]}},
            "p.recorded.paths: expected files of bars, received 'none.csv', which matches no such file",
        ),
        ({"until": "soon"}, "p.until: expected a date such as 2023-01-01, received 'soon'"),
        ({"until": "2020-01-01"}, "p.recorded: expected at least 2 bars of AAA before 2020-01-01T00:00:00, received 0"),
        ({"symbol": "BBB"}, "p.symbol: expected one of AAA, received 'BBB'"),
        ({"mean_block_bars": 0.5}, "p.mean_block_bars: expected"),
    ],
)
def test_what_makes_no_bootstrap_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    files = {"paths": [str(write_columns(tmp_path / "AAA.csv", close=np.array([1.0, 2.0, 3.0])))]}
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}"):
        PROCESSES.make({"name": "bootstrap", "recorded": files} | settings, "p")


def test_a_file_that_is_none_is_refused_by_its_name_and_line(tmp_path: Path) -> None:
    file = tmp_path / "AAA.csv"
    file.write_text("time,open,high,low,close\n2024-01-01,1,2,1,2\n2024-01-02,1,2,1,much\n", encoding="utf-8")
    with pytest.raises(
        SettingsError, match=r"^p\.recorded\.files: .*AAA\.csv, line 3, column close: expected a finite number, received 'much'"
    ):
        PROCESSES.make({"name": "bootstrap", "recorded": {"paths": [str(file)]}}, "p")


def test_a_bootstrap_whose_paths_could_leave_what_a_price_can_be_is_refused(tmp_path: Path) -> None:
    process = StationaryBootstrap(recorded(tmp_path, [1.0, 100.0] * 20))
    with pytest.raises(ValueError, match=r"^mean_block_bars: expected at most [\d.]*, for prices from 1e-100"):
        process.check(1000)
    process.check(20)


def test_rows_that_are_no_whole_episodes_are_refused() -> None:
    process: Any = Correlated(((1.0, 0.5), (0.5, 1.0)))
    parameters = {name: np.ones(3) for name in ("start_price", "price_drift", "volatility")}
    with pytest.raises(ValueError, match="draws: expected rows of whole episodes of 2 assets, received 3"):
        process.paths(Draws([np.random.default_rng(1)] * 3), parameters, 4, 4)
    paths: LogPaths = process.paths(Draws([np.random.default_rng(1)] * 2), {name: values[:2] for name, values in parameters.items()}, 4, 4)
    assert paths.log_price.shape == (2, 5)
