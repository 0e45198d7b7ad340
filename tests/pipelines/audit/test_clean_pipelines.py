"""No check finds a fault in a pipeline without one: every shipped process, observer, action scheme, reward and end, and files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.adjust import AdjustConfig
from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.files.config import FilesConfig
from policyserver.pipelines.market.instruments import InstrumentConfig
from policyserver.pipelines.market.processes import PROCESSES
from policyserver.pipelines.market.resample import ResampleConfig
from policyserver.pipelines.market.schemes.actions import ACTIONS
from policyserver.pipelines.market.schemes.ends import ENDS
from policyserver.pipelines.market.schemes.observers import OBSERVERS
from policyserver.pipelines.market.schemes.observers.indicator import INDICATORS
from policyserver.pipelines.market.schemes.rewards import REWARDS
from policyserver.pipelines.market.split import SplitConfig
from policyserver.pipelines.market.windows import WindowsConfig
from tests.pipelines.audit.audited import changed_future, dividend_file, fair_game, seen, small, warm_up, write_bars
from tests.pipelines.recorded_prices import TREE

THREE = {"symbols": ("AAA", "BBB", "CCC"), "symbols_per_episode": 3}
MIXED = {"name": "mixture", "parts": ({"process": "gbm"}, {"process": "heston"})}
CORRELATED = {"name": "correlated", "correlation": ((1.0, 0.5, 0.0), (0.5, 1.0, 0.3), (0.0, 0.3, 1.0))}
INDICATOR = [{"name": "indicator", "kind": kind, "bars": 10 + place} for place, kind in enumerate(INDICATORS)]
SHIPPED = tuple(name for name in OBSERVERS.shipped if name != "indicator")
SETTINGS: dict[str, dict[str, Any]] = {"rewards": {"order_rate": {"name": "order_rate", "bars": 20, "orders": 5}}}

PROCESS: dict[str, dict[str, Any]] = {
    **{name: {"prices": {"process": name}} for name in PROCESSES.shipped if name not in ("bootstrap", "correlated", "mixture")},
    "student": {"prices": {"process": {"name": "garch", "innovations": "t"}}},
    "mixture": {"prices": {"process": MIXED}},
    "correlated": {"prices": {"process": CORRELATED, **THREE}},
}
RULES: dict[str, dict[str, Any]] = {
    **{name: {"actions": name} for name in ACTIONS.shipped if name != "sell_hold_buy"},
    "observers": {"observers": (*SHIPPED, *INDICATOR)},
    "three symbols": {"observers": (*SHIPPED, *INDICATOR[:3]), "actions": "simplex_weights", "prices": THREE},
    "three weights": {"actions": "target_weight", "prices": THREE},
    "rewards": {"rewards": tuple(SETTINGS["rewards"].get(name, name) for name in REWARDS.shipped)},
    "ends": {"ends": tuple(ENDS.shipped), "actions": "target_position"},
    "margin": {"account": AccountConfig(max_leverage=1.5, maintenance_fraction=0.3), "actions": "target_weight"},
    "grid": {"instrument": InstrumentConfig(tick=0.01, lot=0.1, fee_fixed=1.0, borrow_fraction=1e-4, volume_fraction=0.05)},
    "one episode": {"concurrent": 1},
    "two blocks": {"concurrent": 128, "prices": {"bars_per_episode": 20}},
}


def check(config: PipelineConfig) -> None:
    """Make all three checks."""
    for result in (changed_future(config, cuts=2), fair_game(config, bars=2_000), warm_up(config)):
        assert result.faults == (), result.text()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [PROCESS[name] for name in PROCESS], ids=list(PROCESS))
def test_processes(settings: dict[str, Any]) -> None:
    check(small(**settings))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [RULES[name] for name in RULES], ids=list(RULES))
def test_rules(settings: dict[str, Any]) -> None:
    check(small(**settings))


def one_file(folder: Path) -> PipelineConfig:
    return small(files=(write_bars(folder / "ONE.csv", 1_000, seed=1),))


def tree_on_three_files(folder: Path) -> PipelineConfig:
    files = tuple(write_bars(folder / f"{name}.csv", 400, seed) for seed, name in enumerate(("ONE", "TWO", "SIX")))
    return replace(small(concurrent=16, files=files), regressor=TREE)


def one_symbol_in_two_files(folder: Path) -> PipelineConfig:
    whole = write_bars(folder / "ONE-1m-2020-01.csv", 600, seed=1).read_text(encoding="utf-8").splitlines(keepends=True)
    for name, lines in (("ONE-1m-2020-01", whole[1:301]), ("ONE-1m-2020-02", whole[301:])):
        (folder / f"{name}.csv").write_text("".join([whole[0], *lines]), encoding="utf-8")
    return small(files=(folder,), ends=("drawdown_call",))


def daily_bars_that_begin_at_their_stamp(folder: Path) -> PipelineConfig:
    return small(files=(dividend_file(folder / "DAY.csv", 500, seed=1),), actions="limit_offsets", observers=(*SHIPPED, *INDICATOR))


def further_column(folder: Path) -> PipelineConfig:
    path = write_bars(folder / "ONE.csv", 1_000, seed=1, sentiment=np.sin(np.arange(1_000.0)))
    catalog = CatalogConfig((str(path),), files=FilesConfig(columns=("sentiment",)))
    return seen(small(prices={"recorded": catalog}), {"name": "exogenous", "columns": ["sentiment"]})


def paths_drawn_from_a_file(folder: Path) -> PipelineConfig:
    path = write_bars(folder / "ONE.csv", 400, seed=1)
    return small(prices={"process": {"name": "bootstrap", "recorded": {"paths": [str(path)]}}})


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [paths_drawn_from_a_file, further_column, one_file, tree_on_three_files, one_symbol_in_two_files, daily_bars_that_begin_at_their_stamp],
)
def test_files(make: Callable[[Path], PipelineConfig], tmp_path: Path) -> None:
    check(make(tmp_path))


# Recorded bars as they are prepared and cut ------------------------------------------------------------------------------------------


def of_catalog(
    folder: Path, *, prices: dict[str, Any] | None = None, rules: dict[str, Any] | None = None, **catalog: Any
) -> PipelineConfig:
    """Return a pipeline on two files of daily bars that have dividends, with settings of the catalog."""
    paths = tuple(str(dividend_file(folder / f"{name}.csv", 1_200, seed)) for seed, name in enumerate(("ONE", "TWO")))
    config = small(prices={"recorded": CatalogConfig(paths, **catalog), **(prices or {})}, **(rules or {}))
    return replace(config, regressor=TREE)


PREPARED: dict[str, dict[str, Any]] = {
    "longer bars": {"resample": ResampleConfig("week"), "prices": {"warmup_bars": 30, "bars_per_episode": 30}},
    "adjusted": {"adjust": AdjustConfig("actions", anchor="first")},
    "adjusted closes": {"adjust": AdjustConfig("adjusted_close", anchor="first")},
    "training part": {"prices": {"split": SplitConfig(train_fraction=0.6)}},
    "test part": {"prices": {"split": SplitConfig(play="test", train_fraction=0.6)}},
    "walk forward": {
        "prices": {
            "windows": WindowsConfig(order="walk_forward"),
            "split": SplitConfig(folds=3, train_fraction=0.4),
            "bars_per_episode": 20,
        }
    },
    "skipped bars": {"prices": {"skip_frame": 4}},
    "portfolio": {"prices": {"symbols_per_episode": 2}, "rules": {"actions": "simplex_weights"}},
    "all of it": {
        "adjust": AdjustConfig("actions", anchor="first"),
        "resample": ResampleConfig("2d"),
        "prices": {"split": SplitConfig(train_fraction=0.6), "skip_frame": 2, "symbols_per_episode": 2},
        "rules": {"actions": "target_weight", "observers": (*SHIPPED, *INDICATOR)},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [PREPARED[name] for name in PREPARED], ids=list(PREPARED))
def test_prepared_files(settings: dict[str, Any], tmp_path: Path) -> None:
    check(of_catalog(tmp_path, **settings))


@pytest.mark.long
def test_steps_of_several_bars_on_simulated_prices() -> None:
    check(small(prices={"skip_frame": 3}))
