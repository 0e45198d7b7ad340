"""A run saves what its forecaster learnt; a later one begins with it, unless it would foretell what it has learnt; both are replayed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.common.settings import SettingsError, dump_toml
from policyserver.pipelines.audit.changed_future import check_changed_future
from policyserver.pipelines.audit.played import play, prices_of
from policyserver.pipelines.config import NodesConfig, PipelineConfig, PipelineRecordingConfig, PlayedEpisodesConfig
from policyserver.pipelines.demo.setup import DemoConfig, fresh_run, resumed_run
from policyserver.pipelines.environments import make_vector_env
from policyserver.pipelines.forecast.regressor import RegressorConfig
from policyserver.pipelines.forecast.state_file import STATE_FILE, ForecastState, KeptModel
from policyserver.pipelines.forecast_start import start_of
from policyserver.pipelines.market.catalog import CatalogConfig, file_hash
from policyserver.pipelines.market.split import SplitConfig
from policyserver.pipelines.prices import PricesConfig
from policyserver.pipelines.replay.run_folder import START_FILE
from policyserver.pipelines.run import run_pipeline, source_of
from policyserver.pipelines.runtime.stop_signals import StopSignals
from tests.commands import run_here
from tests.pipelines.recorded_prices import fair_game, write_bars
from tests.pipelines.replay.recorded_runs import assert_equal, record, replay, turns_of

pytestmark = pytest.mark.process  # git's, which is asked for the revision


def config(**options: Any) -> PipelineConfig:
    settings: dict[str, Any] = {
        "seed": 3,
        "worker_number": 0,
        "episodes": PlayedEpisodesConfig(concurrent=140, steps=2_000),
        "nodes": NodesConfig(blocks=2),
        "prices": PricesConfig(bars_per_episode=20, warmup_bars=30),
        "stop_timeout_s": 10.0,
    }
    return PipelineConfig(**settings | options)


def recorded(folder: Path, play: Any = "train", **split: Any) -> PipelineConfig:
    if not (folder / "AAA.csv").exists():
        write_bars(folder / "AAA.csv", fair_game(600, seed=1))
    files = CatalogConfig((str(folder / "*.csv"),))
    prices = PricesConfig(recorded=files, bars_per_episode=20, warmup_bars=30, split=SplitConfig(play=play, **split))
    return config(prices=prices, episodes=PlayedEpisodesConfig(concurrent=8, steps=800), nodes=NodesConfig())


def beginning(settings: PipelineConfig, state: Path, **options: Any) -> PipelineConfig:
    """The same with what an earlier run has learnt."""
    return dataclasses.replace(settings, regressor=dataclasses.replace(settings.regressor, state=state, **options))


def later(settings: PipelineConfig, state: Path) -> PipelineConfig:
    """The same with what an earlier run of simulated prices has learnt, and the episodes after its own."""
    rounds = -(-state_of(state).episodes[3] // settings.episodes.concurrent)
    return beginning(dataclasses.replace(settings, episodes=dataclasses.replace(settings.episodes, first_round=rounds)), state)


def state_of(folder: Path) -> ForecastState:
    return ForecastState.from_bytes((folder / STATE_FILE).read_bytes())


def check(settings: PipelineConfig) -> ForecastState | None:
    return start_of(settings, source_of(settings))


def first_forecasts(folder: Path) -> list[float]:
    """The first forecast of each block of a run."""
    firsts: dict[int, float] = {}
    for turn in turns_of(folder):
        if turn.asked:
            firsts.setdefault(turn.block, float(np.abs(turn.asked[1]).max()))
    return [firsts[block] for block in sorted(firsts)]


def test_a_run_begins_with_what_an_earlier_one_learnt_and_is_replayed_bit_by_bit(tmp_path: Path) -> None:
    record(config(), tmp_path / "one")
    first = state_of(tmp_path / "one")
    assert sorted(first.models) == ["0", "1"]
    assert first.learned > 1_900
    assert first_forecasts(tmp_path / "one") == [0.0, 0.0]
    again = record(later(config(), tmp_path / "one"), tmp_path / "two")
    assert min(first_forecasts(tmp_path / "two")) > 0.0
    kept = tmp_path / "two" / START_FILE
    assert kept.read_bytes() == (tmp_path / "one" / STATE_FILE).read_bytes()
    made_with = json.loads((tmp_path / "two" / "run.json").read_text())["forecast_state"]
    assert made_with["sha256"] == file_hash(kept)
    assert made_with["path"] == str(tmp_path / "one" / STATE_FILE)
    assert state_of(tmp_path / "two").learned > first.learned + 1_900
    (tmp_path / "one" / STATE_FILE).unlink()
    assert_equal(tmp_path / "two", again.run.steps)
    (tmp_path / "two").rename(tmp_path / "moved")
    assert_equal(tmp_path / "moved", again.run.steps)


def test_a_replay_wants_the_state_that_the_run_began_with(tmp_path: Path) -> None:
    record(config(), tmp_path / "one")
    record(later(config(), tmp_path / "one"), tmp_path / "two")
    kept = tmp_path / "two" / START_FILE
    other = state_of(tmp_path / "two").to_bytes()
    kept.write_bytes(other)
    replayed = replay(tmp_path / "two")
    assert replayed.status == 2
    assert f"expected SHA-256 {file_hash(tmp_path / 'one' / STATE_FILE)}, received {hashlib.sha256(other).hexdigest()}" in replayed.err
    kept.unlink()
    replayed = replay(tmp_path / "two")
    assert replayed.status == 2
    assert "expected what the run's forecaster began with, received none" in replayed.err


def test_simulated_episodes_that_the_models_have_learnt_are_refused(tmp_path: Path) -> None:
    record(config(), tmp_path / "one")
    before = state_of(tmp_path / "one").episodes[3]
    with pytest.raises(SettingsError) as caught:
        check(beginning(config(), tmp_path / "one"))
    assert str(caught.value) == (
        f"regressor.state: expected episodes that it has not learnt (episodes.first_round = {-(-before // 140)} or more, or another seed), "
        f"received a state that has learnt those before {before} of this seed, and a run from 0"
    )
    assert check(later(config(), tmp_path / "one")) is not None
    assert check(beginning(config(seed=4), tmp_path / "one")) is not None


def test_a_run_of_recorded_bars_goes_on_where_training_ended(tmp_path: Path) -> None:
    record(recorded(tmp_path), tmp_path / "train")
    until = state_of(tmp_path / "train").models["AAA"].until_ns
    test = recorded(tmp_path, "test")
    record(test, tmp_path / "fresh")
    pipeline = record(beginning(test, tmp_path / "train"), tmp_path / "restored")
    forecasts = [[turn.asked[1].tobytes() for turn in turns_of(tmp_path / run) if turn.asked] for run in ("fresh", "restored")]
    assert forecasts[0][:100] == forecasts[1][:100], "what was learnt of the file is what would be learnt again"
    assert_equal(tmp_path / "restored", pipeline.run.steps)
    ends = [state_of(tmp_path / run).models["AAA"] for run in ("fresh", "restored")]
    assert ends[0].until_ns is not None
    assert until is not None
    assert ends[0].until_ns > until
    assert [end.learned for end in ends] == [ends[0].learned] * 2


def test_a_state_that_has_seen_the_test_span_is_a_leak_and_refused_by_every_command(tmp_path: Path) -> None:
    test = recorded(tmp_path, "test")
    record(test, tmp_path / "seen")
    leak = beginning(test, tmp_path / "seen")
    expected = (
        r"regressor\.state: expected one of AAA that ends by 2020-01-01T\d\d:\d\d:00Z, the first action, received a state that has learnt"
    )
    with pytest.raises(SettingsError, match=expected):
        check(leak)
    with pytest.raises(SettingsError, match=expected):
        make_vector_env(leak)
    file = tmp_path / "leak.toml"
    file.write_text(dump_toml(leak), encoding="utf-8")
    ended = run_here("policy-pipeline", "check-future", "--config", str(file))
    assert ended.returncode != 0
    assert re.search(expected, ended.stderr), ended.stderr
    assert "Traceback" not in ended.stderr
    with pytest.raises(SettingsError, match=expected):
        run_pipeline(dataclasses.replace(leak, recording=PipelineRecordingConfig(store=None)), StopSignals())


def test_a_clean_pipeline_that_begins_with_a_state_depends_on_no_later_bar(tmp_path: Path) -> None:
    record(recorded(tmp_path), tmp_path / "train")
    test = beginning(recorded(tmp_path, "test"), tmp_path / "train")
    played = play(test, prices_of(test), range(8), concurrent=8)
    assert all(episode["step.prediction"].values[0] != 0.0 for episode in played.recorded.values())
    assert check_changed_future(test, range(8), 8, cuts=2).faults == ()


def test_symbols_without_a_model_begin_anew_and_a_state_of_others_alone_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record(recorded(tmp_path), tmp_path / "train")
    write_bars(tmp_path / "BBB.csv", fair_game(600, seed=2))
    both = beginning(recorded(tmp_path, "test"), tmp_path / "train")
    assert check(both) is not None
    assert "has no model of BBB, which begins anew" in caplog.text
    record(both, tmp_path / "both")
    assert sorted(state_of(tmp_path / "both").models) == ["AAA", "BBB"]
    (tmp_path / "AAA.csv").unlink()
    files = CatalogConfig((str(tmp_path / "BBB.csv"),))
    other = dataclasses.replace(both, prices=dataclasses.replace(both.prices, recorded=files))
    with pytest.raises(SettingsError, match=r"^regressor\.state: expected models of BBB, received those of AAA"):
        check(other)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"regressor": RegressorConfig(scale_features=False)},
            r"expected regressor\.scale_features false, .* regressor\.scale_features true",
        ),
        ({"prices": PricesConfig(bars_per_episode=25, warmup_bars=30)}, "bars, warm-up included, 55, .* received .* 50"),
        ({"prices": PricesConfig(bars_per_episode=20, warmup_bars=30, bar_interval_s=3600.0)}, "bars of 1h, .* received .* bars of 1min$"),
    ],
    ids=["regressor", "episodes", "bars"],
)
def test_a_state_of_another_pipeline_is_refused_before_anything_starts(options: dict[str, Any], problem: str, tmp_path: Path) -> None:
    record(config(), tmp_path / "one")
    with pytest.raises(SettingsError, match=f"^regressor\\.state: .*{problem}"):
        check(beginning(config(**options), tmp_path / "one"))


def test_what_was_learnt_of_minutes_is_refused_on_the_hours_of_the_same_file_before_anything_starts(tmp_path: Path) -> None:
    record(recorded(tmp_path), tmp_path / "minutes")
    write_bars(tmp_path / "AAA.csv", fair_game(600, seed=2), bar_s=3600)
    hours = beginning(recorded(tmp_path, "test"), tmp_path / "minutes")
    with pytest.raises(SettingsError) as caught:
        check(hours)
    assert str(caught.value) == ("regressor.state: expected AAA in bars of 1h, as this run has, received a state of AAA in bars of 1min")


def test_a_run_that_is_not_to_be_saved_leaves_no_state(tmp_path: Path) -> None:
    record(config(regressor=RegressorConfig(save_every_s=None)), tmp_path / "one")
    assert not (tmp_path / "one" / STATE_FILE).exists()


def test_environments_begin_with_a_state(tmp_path: Path) -> None:
    record(config(), tmp_path / "one")
    settings = later(config(), tmp_path / "one")
    fresh, restored = (make_vector_env(each, 4) for each in (config(), settings))
    fresh.reset(seed=0)
    restored.reset(seed=0)
    assert not fresh.block.view.forecast.any()
    assert restored.block.view.forecast.any()


def test_a_resumed_demo_goes_on_with_what_its_forecaster_had_learnt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, settings = fresh_run(DemoConfig(runs=tmp_path / "runs", episodes=8), "127.0.0.1:9901")
    record(dataclasses.replace(settings, episodes=dataclasses.replace(settings.episodes, steps=500)), folder)
    learnt = state_of(folder)
    again = DemoConfig(resume=True, runs=tmp_path / "runs")
    resumed = resumed_run(folder, again, "127.0.0.1:9901")
    assert resumed.regressor.state == folder / "earlier" / "1" / STATE_FILE
    assert resumed.episodes.first_round * 8 >= learnt.episodes[resumed.episodes_seed]
    start = check(resumed)
    assert start is not None
    assert start.learned == learnt.learned
    short = dataclasses.replace(resumed.episodes, steps=500)
    record(dataclasses.replace(resumed, episodes=short), folder)
    foreign = dataclasses.replace(state_of(folder), river="0.1.0")
    foreign.write(folder / STATE_FILE)
    anew = resumed_run(folder, again, "127.0.0.1:9901")
    assert "the forecaster can't go on with it: expected River" in caplog.text
    assert anew.regressor.state == folder / "earlier" / "2" / START_FILE, "as the part before had begun"
    assert (folder / "earlier" / "2" / START_FILE).read_bytes() == (folder / "earlier" / "1" / STATE_FILE).read_bytes()


def test_a_model_that_is_another_one_than_the_settings_say_is_not_unpickled(tmp_path: Path) -> None:
    record(config(), tmp_path / "one")
    broken = KeptModel(b"cposix\nabort\n(tR.", 1)  # the process would end
    dataclasses.replace(state_of(tmp_path / "one"), river="0.1.0", models={"0": broken}).write(tmp_path / "one" / STATE_FILE)
    with pytest.raises(SettingsError, match="expected River"):
        check(beginning(config(seed=4), tmp_path / "one"))
