"""A resumed demo goes on in each slot where the run was: no episode comes twice, none is left out, however the part before ended."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.common.settings import SettingsError
from policyserver.monitoring.store.reader import StoreReader
from policyserver.pipelines.config import PipelineConfig, PlayedEpisodesConfig
from policyserver.pipelines.demo.setup import STORE_FILE, DemoConfig, fresh_run, resumed_run
from policyserver.pipelines.forecast.state_file import STATE_FILE, ForecastState
from policyserver.pipelines.forecast_start import saved_forecasts, start_of
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.replay.run_folder import EARLIER, RUN_FILE, START_FILE, put_aside
from policyserver.pipelines.replay.run_record import recorded_run
from policyserver.pipelines.run import closing_sink, source_of
from tests.pipelines.pipeline_harness import WAIT_S
from tests.pipelines.policy_double import PolicyDouble
from tests.pipelines.recorded_prices import fair_game, write_bars

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]  # git's, which is asked for the revision

ADDRESS = "127.0.0.1:9901"
CONCURRENT = 4
RULES = '[rules]\nends = ["ruin", { name = "drawdown_call", fraction = 0.1 }]\n'
SIMULATED = '[prices]\nprocess = { name = "gbm", volatility = { low = 0.03, high = 0.03 } }\n'


def begun(tmp_path: Path, prices: str) -> tuple[Path, PipelineConfig]:
    """Return the folder and the settings of a new run; some episodes end early, so that slots get ahead of others."""
    file = tmp_path / "own.toml"
    sizes = "warmup_bars = 40\nbars_per_episode = 40\n"
    file.write_text(f"[episodes]\nconcurrent = {CONCURRENT}\nsteps = 900\n{prices}{sizes}{RULES}", encoding="utf-8")
    return fresh_run(DemoConfig(config=file, runs=tmp_path / "runs"), ADDRESS)


def recorded(tmp_path: Path) -> str:
    """Return the settings of the bars of a wild and a calm symbol, in the order of time."""
    for seed, (name, volatility) in enumerate((("AAA", 0.03), ("BBB", 0.0005))):
        write_bars(tmp_path / f"{name}.csv", fair_game(4_000, seed, volatility))
    return f'[prices]\nrecorded = {{ paths = ["{tmp_path}/*.csv"] }}\nwindows = {{ order = "sequential" }}\n'


def play(config: PipelineConfig, folder: Path) -> Pipeline:
    """Play a part of a demo's run, but against a service in memory."""
    start = start_of(config, source_of(config))
    with (
        closing_sink(config) as sink,
        recorded_run(config, folder, lambda: None, start) as log,
        saved_forecasts(pipeline := Pipeline(config, PolicyDouble(), sink, turns=log, start=start), folder),
        pipeline.running(),
    ):
        assert pipeline.wait(WAIT_S)
    return pipeline


def resumed(folder: Path, steps: int = 900) -> PipelineConfig:
    config = resumed_run(folder, DemoConfig(resume=True, runs=folder.parent, steps=steps), ADDRESS)
    start_of(config, source_of(config))  # as the demo does when its server is there
    return config


def played(folder: Path) -> list[int]:
    with closing(StoreReader(folder / STORE_FILE)) as reader:
        return [int(episode.rpartition("-")[2]) for (episode,) in reader.select("SELECT episode FROM episode")]


def test_each_slot_goes_on_with_its_own_next_episode_of_recorded_bars(tmp_path: Path) -> None:
    folder, config = begun(tmp_path, recorded(tmp_path))
    rounds = play(config, folder).blocks[0].rounds
    assert rounds.max() > rounds.min() + 3, "slots get ahead of others"
    for _ in range(2):
        config = resumed(folder)
        assert config.episodes.begins.tolist() == rounds.tolist()
        rounds = play(config, folder).blocks[0].rounds
    assert Counter(played(folder)) == Counter(slot + CONCURRENT * n for slot in range(CONCURRENT) for n in range(int(rounds[slot])))


def test_after_a_kill_the_episodes_that_were_open_do_not_come_again(tmp_path: Path) -> None:
    folder, config = begun(tmp_path, recorded(tmp_path))
    rounds = play(config, folder).blocks[0].rounds
    with closing(sqlite3.connect(folder / STORE_FILE)) as store, store:
        cut = store.execute("DELETE FROM episode WHERE cut").rowcount
    assert cut > 0
    assert resumed(folder).episodes.begins.tolist() == rounds.tolist()


def test_what_its_store_cannot_tell_is_in_the_settings_of_the_resume_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, config = begun(tmp_path, SIMULATED)
    play(config, folder)
    begins = resumed(folder).episodes.begins.tolist()
    (folder / STORE_FILE).write_bytes(b"no database" * 1_000)
    assert resumed(folder).episodes.begins.tolist() == begins
    assert "which episodes the run has played can't be read" in caplog.text


def test_a_resume_that_does_not_come_to_play_can_be_resumed_again_and_again(tmp_path: Path) -> None:
    folder, config = begun(tmp_path, SIMULATED)
    rounds = play(config, folder).blocks[0].rounds
    assert rounds.max() > rounds.min(), "slots get ahead of others"
    before = ForecastState.from_bytes((folder / STATE_FILE).read_bytes())
    for _ in range(3):
        config = resumed(folder)
        assert config.episodes.begins.tolist() == [rounds.max()] * CONCURRENT
        assert config.regressor.state == folder / EARLIER / "1" / STATE_FILE
        assert start_of(config, source_of(config)) == dataclasses.replace(before, data=(folder / EARLIER / "1" / STATE_FILE).read_bytes())


def test_a_part_that_was_killed_before_it_saved_can_be_resumed_again_and_again(tmp_path: Path) -> None:
    folder, config = begun(tmp_path, SIMULATED)
    play(config, folder)
    learnt = (folder / STATE_FILE).read_bytes()
    config = resumed(folder)
    for number in (2, 3):
        rounds = play(config, folder).blocks[0].rounds
        (folder / STATE_FILE).unlink()
        config = resumed(folder)
        shutil.rmtree(folder / EARLIER / str(number - 1))  # as recording.keep_runs has it in the end
        assert config.regressor.state == folder / EARLIER / str(number) / START_FILE
        assert (folder / EARLIER / str(number) / START_FILE).read_bytes() == learnt
        assert int(config.episodes.begins.min()) == rounds.max()
    assert len(played(folder)) == len(set(played(folder)))


def test_a_run_whose_state_is_of_another_version_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, config = begun(tmp_path, SIMULATED)
    play(config, folder)
    config = resumed(folder)
    for state in (folder / EARLIER / "1").glob("*.state"):
        dataclasses.replace(ForecastState.from_bytes(state.read_bytes()), river="0.1.0").write(state)
    again = resumed(folder)
    assert again.regressor.state is None
    assert again.episodes == config.episodes
    assert "expected River" in caplog.text


def test_a_state_of_the_users_own_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    folder, config = begun(tmp_path, SIMULATED)
    play(config, folder)
    (folder / STATE_FILE).rename(tmp_path / "own.state")
    text = (folder / "pipeline.toml").read_text(encoding="utf-8")
    (folder / "pipeline.toml").write_text(text.replace("[regressor]", f'[regressor]\nstate = "{tmp_path / "own.state"}"'), encoding="utf-8")
    assert resumed(folder).regressor.state == tmp_path / "own.state"
    (tmp_path / "own.state").write_bytes(b"none")
    with pytest.raises(SettingsError, match=r"regressor\.state: .*expected a forecast state"):
        resumed(folder)


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_part_that_a_kill_left_half_put_aside_is_put_aside_whole(moved: int, tmp_path: Path) -> None:
    names = ("pipeline.toml", "summary.json", STATE_FILE, RUN_FILE)
    for name in names:
        (tmp_path / name).write_text(name)
    aside = tmp_path / EARLIER / "1"
    aside.mkdir(parents=True)
    for name in names[1 : 1 + moved]:
        (tmp_path / name).rename(aside / name)
    assert put_aside(tmp_path) == aside
    assert {path.name: path.read_text() for path in aside.iterdir()} == dict(zip(names, names, strict=True))
    assert put_aside(tmp_path) is None


def test_slots_begin_at_rounds_of_their_own(tmp_path: Path) -> None:
    config = PipelineConfig(episodes=PlayedEpisodesConfig(concurrent=3, first_rounds=(4, 0, 9)))
    assert config.episodes.begins.tolist() == [4, 0, 9]
    assert np.array_equal(PlayedEpisodesConfig(concurrent=2, first_round=7).begins, [7, 7])
    wrong_ones: list[tuple[dict[str, Any], str]] = [
        ({"first_rounds": (1, 2)}, "expected 3 numbers"),
        ({"first_rounds": (1, -2, 3)}, "expected numbers of at least 0, received -2"),
        ({"first_rounds": (1, 2, 3), "first_round": 1}, "beside"),
    ]
    for wrong, problem in wrong_ones:
        with pytest.raises(SettingsError, match=problem):
            PlayedEpisodesConfig(concurrent=3, **wrong)
