"""A setting that nothing would read is refused, by its dotted key and in one line, wherever a combination leaves it unread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policyserver.common.settings import SettingsError, from_table
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.demo.setup import DemoConfig, fresh_run
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.prices import PricesConfig
from tests.pipelines.recorded_market import minutes, recorded, write_symbol

FILES: dict[str, Any] = {"paths": ["a.csv"]}
SPLIT_OF_TWO = {"folds": 2}


def table(key: str, value: Any, beside: dict[str, Any]) -> dict[str, Any]:
    """Return the table of a setting by its dotted key, and of what is set beside it."""
    made: dict[str, Any] = {}
    for each, setting in [*beside.items(), (key, value)]:
        place = made
        *sections, name = each.split(".")
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = setting
    return made


RECORDED = {"prices.recorded": FILES}
UNREAD: list[tuple[str, Any, dict[str, Any], str]] = [
    ("prices.symbols", ["AAA"], RECORDED, "beside recorded bars, which have the symbols and times of the files in recorded.paths"),
    ("prices.bar_interval_s", 3600.0, RECORDED, "beside recorded bars"),
    ("prices.steps_per_bar", 1, RECORDED, "beside recorded bars"),
    ("prices.bars_per_episode", 20, RECORDED | {"prices.windows.length": "1d"}, "beside windows.length, which comes first"),
    ("prices.windows.fold_episodes", 7, RECORDED, 'without windows.order = "walk_forward"'),
    ("prices.windows.time_zone", "-05:00", RECORDED, 'without weekdays, hours or start = "day"'),
    ("prices.split.train_fraction", 0.1, RECORDED | {"prices.split.test_from": "2024-01-20"}, "beside test_from"),
    ("prices.split.is_anchored", True, RECORDED, "with one fold"),
    ("prices.split.learns_on_test", True, RECORDED, "without episodes.training_enabled = true"),
    ("prices.recorded.adjust.dividends", False, {"prices.recorded.paths": ["a.csv"]}, 'without by = "actions"'),
    ("prices.recorded.adjust.anchor", "last", {"prices.recorded.paths": ["a.csv"]}, 'with by = "none"'),
    ("prices.recorded.resample.time_zone", "-05:00", {"prices.recorded.resample.unit": "20bars"}, "with the unit 20bars"),
    ("regressor.in_test", "frozen", RECORDED, "without [prices.split]"),
    ("regressor.in_test", "frozen", {}, "without [prices.split]"),
    ("regressor.learning_rate", 0.1, {"regressor.model": "river.tree.HoeffdingTreeRegressor"}, "beside a model other than"),
]


@pytest.mark.parametrize(("key", "value", "beside", "why"), UNREAD, ids=[f"{key} {why}" for key, _, _, why in UNREAD])
def test_a_setting_that_is_not_read_is_refused(key: str, value: Any, beside: dict[str, Any], why: str) -> None:
    from_table(PipelineConfig, table("seed", 0, beside), "pipeline.toml")
    with pytest.raises(SettingsError) as refused:
        from_table(PipelineConfig, table(key, value, beside), "pipeline.toml")
    assert str(refused.value).startswith(f"pipeline.toml: {key}: expected it to be left out {why}")
    assert str(refused.value).endswith(
        f"received {tuple(value)!r}" if isinstance(value, list) else f"received {'true' if key.endswith('learns_on_test') else repr(value)}"
    )
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("prices", "problem"),
    [
        ({}, "with simulated prices, whose bars are all there, received '2min'"),
        ({"recorded": FILES}, "with one symbol in an episode, received '2min'"),
    ],
)
def test_a_deadline_for_symbols_that_never_wait_is_refused(prices: dict[str, Any], problem: str) -> None:
    deadline = {"decide": "all_symbols", "decide_deadline": "2min"}
    with pytest.raises(SettingsError, match=rf"prices\.decide_deadline: expected none {problem}"):
        from_table(PipelineConfig, {"prices": prices | deadline}, "pipeline.toml")


@pytest.mark.parametrize("name", ["observers", "rewards"])
def test_rules_without_what_every_step_needs_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"^rules\.{name}: expected at least one, or .* nothing, received none$"):
        Rules.of(from_table(RulesConfig, {name: []}, "pipeline.toml"))
    assert Rules.of(RulesConfig(ends=())).ends == ()


def test_names_are_those_of_the_assets_of_a_process_in_their_order(tmp_path: Path) -> None:
    for place, name in enumerate(("AAA", "BBB")):
        write_symbol(tmp_path / f"{name}.csv", minutes(2), place)
    process = {"name": "bootstrap", "recorded": {"paths": [str(tmp_path)]}}

    def refusal(*symbols: str) -> str:
        with pytest.raises(SettingsError) as refused:
            PricesConfig(process=process, symbols=symbols, symbols_per_episode=2)
        return str(refused.value).partition(": ")[2]

    assert refusal("AAA", "BBB", "CCC") == "symbols: expected 2 names, one for each asset of the process, received AAA, BBB, CCC"
    in_order = "symbols: expected AAA, BBB in the order of the process's assets, or other names, received"
    assert refusal("BBB", "AAA") == f"{in_order} BBB, AAA"
    assert refusal("BBB", "CCC") == f"{in_order} BBB, CCC"
    for symbols in (("AAA", "BBB"), ("one", "two")):
        assert PricesConfig(process=process, symbols=symbols, symbols_per_episode=2).symbols == symbols
    with pytest.raises(SettingsError, match="steps_per_bar: expected it to be left out with a process that has bars without sub-steps"):
        PricesConfig(process=process, symbols=("AAA", "BBB"), symbols_per_episode=2, steps_per_bar=1)


def test_files_in_place_of_a_demos_own_prices_leave_the_settings_of_simulated_ones_behind(tmp_path: Path) -> None:
    write_symbol(tmp_path / "AAA.csv", minutes(4))
    settings = tmp_path / "pipeline.toml"
    own = 'symbols = ["X"]\nbar_interval_s = 3600.0\nsteps_per_bar = 2\nwarmup_bars = 60\nbars_per_episode = 20\n'
    settings.write_text(f"[prices]\n{own}", encoding="utf-8")
    _, config = fresh_run(DemoConfig(config=settings, files=(tmp_path / "AAA.csv",), runs=tmp_path / "runs"), "127.0.0.1:9999")
    assert config.prices.recorded == recorded(tmp_path / "AAA.csv")
    assert (config.prices.symbols, config.prices.steps_per_bar) == (PricesConfig().symbols, PricesConfig().steps_per_bar)
    assert config.prices.bars_per_episode == 20
