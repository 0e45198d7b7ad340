"""Each variant of the market is run with three seeds and has its rows on the page; a run that is interrupted writes nothing."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from benchmarks.market import variants
from benchmarks.market.page import pair
from benchmarks.market.reference_policies import mean_reversion_rule, optimum
from policyserver.common.settings import dump_toml
from policyserver.monitoring.points import Points
from policyserver.monitoring.store.store import EmbeddedStore
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.demo.setup import SERVER_FILE, STORE_FILE, DemoConfig
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.prices import PricesConfig, make_source
from policyserver.pipelines.replay.run_folder import PIPELINE_FILE
from policyserver.pipelines.runtime.stop_signals import StopSignals
from policyserver.pipelines.summary import standard_error
from tests.benchmarks.market.demos import Demos

WHOLE, CUT = 20, 3
"""Episodes of a run that ran their full length, and those that its end cut."""

SCALED = ("ou", "gbm")
"""Prices whose rule and optimum are known."""


def leave(options: DemoConfig, folder: Path) -> dict[str, Any]:
    config = PipelineConfig(seed=options.seed or 0, prices=PricesConfig(process=options.market if options.market in SCALED else "ou"))
    (folder / PIPELINE_FILE).write_text(dump_toml(config))
    (folder / SERVER_FILE).write_text('run_folder = "somewhere"\n[hand_off]\nbatches_ahead = 1\n')
    store = EmbeddedStore(folder / STORE_FILE)
    for number in range(WHOLE + CUT):
        is_whole = number < WHOLE
        fields = {"episode": f"AAA-{number}", "return": 1.0, "no_trade_return": 0.0 if is_whole else None}
        fields["random_return"] = -1.0 - number % 2 if is_whole else None
        store.write(Points.one("episode", {"run": folder.name, "symbol": "AAA"}, fields))
    store.close(30.0)
    return {
        "return_mean": 12.5 + 0.25 * options.show_prediction * (options.seed or 0),
        "return_stderr": 0.75,
        "regressor_skill": -2.2e-06,
        "regressor_skill_stderr": 1.2e-05,
    }


def played(process: Any, seed: int) -> tuple[str, str]:
    """Return what the rule and the optimum earn on the two episodes that stand for a run."""
    source = make_source(PricesConfig(process=process), seed)
    episodes = source.episodes([WHOLE - 1, WHOLE - 2])
    both = (play(Rules.of(RulesConfig()), episodes).returns for play in (mean_reversion_rule, optimum))
    rule, best = (pair(float(returns.mean()), standard_error(returns)) for returns in both)
    return rule, best


def test_three_seeds_of_each_variant_are_run_and_each_has_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demos = Demos(tmp_path, leave)
    monkeypatch.setattr(variants, "run_demo", demos)
    variants.run_variants(tmp_path / "docs", 5_000, io.StringIO(), StopSignals())
    wanted = [("ou", True), ("ou", False), ("gbm", True), ("heston-mixture", True), ("portfolio", True)]
    assert [(asked.market, asked.show_prediction, asked.seed) for asked in demos.asked] == [(*v, seed) for v in wanted for seed in range(3)]
    assert {asked.steps for asked in demos.asked} == {5_000}
    text = (tmp_path / "docs" / "learning.md").read_text()
    assert "hand_off.batches_ahead = 1" in text, "the page says what it ran with"
    assert "somewhere" not in text
    rows = [line.split(" | ") for line in text.splitlines() if " ± 0.75 " in line]
    assert [(row[0].strip("| "), row[1]) for row in rows] == [
        (variant.title, str(seed)) for variant in variants.VARIANTS for seed in range(3)
    ]
    assert [row[5] for row in rows[:4]] == ["+12.50 ± 0.75", "+12.75 ± 0.75", "+13.00 ± 0.75", "+12.50 ± 0.75"]
    scales = [played(asked.market, asked.seed or 0) if asked.market in SCALED else ("-", "-") for asked in demos.asked]
    assert [(row[6], row[7]) for row in rows] == scales, "of the newest tenth of the whole episodes"
    assert {row[10] for row in rows} == {"5.0"}, "of gains of 3 and 2 over random"
    assert "OU: over the seeds the policy earned +12.8, " in text
    assert "The forecast is worth +0.25 ± 0.14 to the policy" in text
    assert "the regressor does not earn its place here" in text
    assert all("-2.2e-06 ± 1.2e-05" in row for row in rows), "two numbers too small for their digits can still be compared"
    assert 'make learn ARGS="--steps 5000"' in text
    ElementTree.fromstring((tmp_path / "docs" / "learning.svg").read_text())


def test_an_interrupted_run_ends_the_rest_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demos = Demos(tmp_path, leave, interrupted_at=2)
    monkeypatch.setattr(variants, "run_demo", demos)
    out = io.StringIO()
    variants.run_variants(tmp_path / "docs", None, out, StopSignals())
    assert len(demos.asked) == 2
    assert "interrupted: nothing is written" in out.getvalue()
    assert not (tmp_path / "docs").exists()
