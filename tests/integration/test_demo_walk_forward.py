"""`policy-pipeline demo` of a walk-forward: one server learns all folds, each part has its figures, and the books of each agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policyserver.pipelines.walk_forward import WALK_FORWARD_FILE
from tests.commands import run_here
from tests.pipelines.recorded_market import minutes, write_symbol
from tests.pipelines.replay.recorded_runs import replay

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(900)]

SPANS = ["train 0", "test 0", "train 1", "test 1"]


def test_a_demo_plays_each_fold_and_prints_a_line_for_each_part(tmp_path: Path) -> None:
    for place, name in enumerate(("AAA", "BBB")):
        write_symbol(tmp_path / f"{name}.csv", minutes(6), place)
    file = tmp_path / "walk.toml"
    file.write_text(
        f"""
        episodes.concurrent = 4
        [prices]
        bars_per_episode = 30
        warmup_bars = 40
        recorded.paths = ["{tmp_path / "*.csv"}"]
        windows = {{ order = "walk_forward", fold_episodes = 12 }}
        split = {{ play = "both", folds = 2, train_fraction = 0.5 }}
        """,
        encoding="utf-8",
    )
    options = ("--config", str(file), "--runs", str(tmp_path / "runs"), "--json", str(tmp_path / "summary.json"))
    ended = run_here("policy-pipeline", "demo", *options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = ended.stdout.splitlines()
    assert [line.partition(":")[0] for line in said if line.startswith("fold ")] == [
        f"fold {span.rpartition(' ')[2]}, {span.partition(' ')[0]}" for span in SPANS
    ]
    assert [line.split("  ")[0] for line in said if line.startswith(("train ", "test "))] == SPANS
    assert any(line.startswith("all tests") for line in said)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    (folder,) = (tmp_path / "runs").iterdir()
    assert json.loads((folder / WALK_FORWARD_FILE).read_text(encoding="utf-8")) == summary
    assert [f"{part['part']} {part['fold']}" for part in summary["parts"]] == SPANS
    for part, span in zip(summary["parts"], SPANS, strict=True):
        figures = part["summary"]
        assert figures["spans"] == {span: figures["episodes_finished"]}
        assert figures["steps"] == figures["points_recorded"] == 30 * figures["episodes_finished"]
        for ledger in ("server", "recorded"):
            assert figures[f"reward_sum_{ledger}"] == pytest.approx(figures["reward_sum_client"], abs=1e-6)
        assert figures["steps_trained"] <= 30 * 24, "no step of a test is learnt from"
    replayed = replay(folder)
    assert replayed.status == 0, replayed.out + replayed.err
    assert [result["steps"] for result in replayed.results] == [part["summary"]["steps"] for part in summary["parts"]]
