"""`policy-pipeline check-future` of a walk-forward: every part is checked, and of each fold the purge between training and testing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policyserver.pipelines import check_future
from policyserver.pipelines.__main__ import main
from policyserver.pipelines.audit.played import play, prices_of
from policyserver.pipelines.config import PipelineConfig, PlayedEpisodesConfig
from policyserver.pipelines.market import split
from policyserver.pipelines.market.split import SplitConfig
from policyserver.pipelines.market.windows import WindowsConfig
from policyserver.pipelines.prices import PricesConfig
from tests.pipelines.recorded_market import minutes, recorded, write_symbol


@pytest.fixture
def walk(tmp_path: Path) -> PipelineConfig:
    """Two folds of two symbols."""
    (tmp_path / "bars").mkdir()
    for place, name in enumerate(("AAA", "BBB")):
        write_symbol(tmp_path / "bars" / f"{name}.csv", minutes(6), place)
    prices = PricesConfig(
        recorded=recorded(tmp_path / "bars"),
        bars_per_episode=30,
        warmup_bars=40,
        windows=WindowsConfig(order="walk_forward", fold_episodes=6),
        split=SplitConfig(play="both", folds=2, train_fraction=0.5),
    )
    return PipelineConfig(prices=prices, episodes=PlayedEpisodesConfig(concurrent=4))


@pytest.mark.long
def test_the_purge_of_each_fold_is_looked_at(walk: PipelineConfig) -> None:
    checks = check_future.checks(walk)
    assert len(checks) == 14, "three of each part, and one of each fold"
    found = [checks[3](), checks[10]()]
    assert [(result.check, result.part, result.faults) for result in found] == [("split", "fold 0", ()), ("split", "fold 1", ())]
    assert all("from the last bar of training to the first that testing sees: 4,800 s" in result.text() for result in found)


@pytest.mark.long
def test_a_split_without_a_purge_is_found_in_each_fold(walk: PipelineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = split.split
    monkeypatch.setattr("policyserver.pipelines.prices.recorded.split", lambda time_ns, cuts, purge: honest(time_ns, cuts, 0))
    checks = check_future.checks(walk)
    for result in (checks[3](), checks[10]()):
        assert [fault.part for fault in result.faults] == ["split"] * 2, "of each symbol"
        assert "training plays bars up to" in result.text()


@pytest.mark.long
def test_a_run_of_few_episodes_is_checked_with_as_many_as_the_check_asks_for() -> None:
    few = PipelineConfig(prices=PricesConfig(bars_per_episode=5, warmup_bars=40), episodes=PlayedEpisodesConfig(concurrent=2, count=2))
    played = play(few, prices_of(few), range(6))  # the episodes after them may have begun when the last is over
    assert [len(played.observations[number]) for number in range(6)] == [played.episodes[number].bars.n_steps + 1 for number in range(6)]


@pytest.mark.slow
def test_every_part_has_a_line_for_each_check(walk: PipelineConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "walk.toml"
    file.write_text(
        f"""
        episodes.concurrent = 4
        [prices]
        bars_per_episode = 30
        warmup_bars = 40
        recorded.paths = ["{tmp_path / "bars"}"]
        windows = {{ order = "walk_forward", fold_episodes = 6 }}
        split = {{ play = "both", folds = 2, train_fraction = 0.5 }}
        """,
        encoding="utf-8",
    )
    assert main(["check-future", "--config", str(file), "--cuts", "1", "--json", str(tmp_path / "found.json")]) == 0
    lines = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    wanted = []
    for fold in range(2):
        for side in ("train", "test"):
            wanted += [f"{side} {fold}, {check}" for check in ("changed future", "fair game", "warm-up")]
            wanted += [f"fold {fold}, split"] if side == "train" else []
    assert lines == wanted
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert [f"{check['part']}, {check['check']}" for check in found["checks"]] == wanted
