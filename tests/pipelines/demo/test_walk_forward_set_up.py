"""A demo of a walk-forward: each part ends by itself, so steps are refused, and so is to go on with one; all of it is checked before."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyserver.common.settings import SettingsError, load
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.demo.setup import WALK_FORWARD_SETTINGS, DemoConfig, fresh_run, resumed_run
from policyserver.pipelines.walk_forward import fold_parts
from tests.pipelines.recorded_market import minutes, write_symbol

ADDRESS = "127.0.0.1:9901"

pytestmark = pytest.mark.long


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    write_symbol(tmp_path / "AAA.csv", minutes(6))
    file = tmp_path / "walk.toml"
    file.write_text(
        f"""
        episodes.concurrent = 4
        [prices]
        bars_per_episode = 30
        warmup_bars = 40
        recorded.paths = ["{tmp_path / "AAA.csv"}"]
        windows = {{ order = "walk_forward", fold_episodes = 6 }}
        split = {{ play = "both", folds = 2, train_fraction = 0.5 }}
        [recording]
        keep_runs = 1
        """,
        encoding="utf-8",
    )
    return file


def test_the_settings_of_all_parts_are_in_the_run_folder_and_all_parts_are_kept(settings: Path, tmp_path: Path) -> None:
    folder, config = fresh_run(DemoConfig(config=settings, runs=tmp_path / "runs"), ADDRESS)
    assert config.episodes.steps is None
    assert load(PipelineConfig, folder / WALK_FORWARD_SETTINGS) == config
    parts = fold_parts(config)
    assert [part.config.prices.part for part in parts] == ["train 0", "test 0", "train 1", "test 1"]
    assert config.recording.keep_runs == len(parts)


def test_steps_are_refused(settings: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r'--steps: expected none with prices\.split\.play = "both", received 100$'):
        fresh_run(DemoConfig(config=settings, steps=100, runs=tmp_path / "runs"), ADDRESS)
    assert not (tmp_path / "runs").exists()


def test_a_part_that_can_not_be_played_is_refused_before_there_is_a_folder(settings: Path, tmp_path: Path) -> None:
    settings.write_text(settings.read_text(encoding="utf-8").replace("folds = 2", "folds = 40"), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"^prices\.windows: .*: expected at least one window of 40 bars of warm-up"):
        fresh_run(DemoConfig(config=settings, runs=tmp_path / "runs"), ADDRESS)
    assert not (tmp_path / "runs").exists()


def test_it_is_not_gone_on_with(settings: Path, tmp_path: Path) -> None:
    folder, _ = fresh_run(DemoConfig(config=settings, runs=tmp_path / "runs"), ADDRESS)
    with pytest.raises(SettingsError, match=r"--resume: expected another run than a walk-forward, .*: begin it anew$"):
        resumed_run(folder, DemoConfig(resume=True, runs=tmp_path / "runs"), ADDRESS)
