"""A walk-forward in one run: folds train and are tested one after the other, tests play each window once and are not learnt from."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policyserver.client import PolicyClient
from policyserver.common.settings import SettingsError, from_table
from policyserver.monitoring.store.reader import StoreReader
from policyserver.pipelines import walk_forward
from policyserver.pipelines.__main__ import main
from policyserver.pipelines.config import NodesConfig, PipelineConfig, PipelineRecordingConfig, PlayedEpisodesConfig, ServerConnectionConfig
from policyserver.pipelines.market.split import SplitConfig
from policyserver.pipelines.market.windows import WindowsConfig
from policyserver.pipelines.prices import PricesConfig
from policyserver.pipelines.run import source_of
from policyserver.pipelines.runtime.stop_signals import StopSignals
from policyserver.pipelines.walk_forward import WALK_FORWARD_FILE, fold_parts, run_walk_forward
from tests.pipelines.pipeline_harness import play
from tests.pipelines.recorded_market import minutes, pipeline, recorded, write_symbol
from tests.pipelines.replay.recorded_runs import replay
from tests.server.serving_loop_harness import ServingLoopHarness, running_serving_loop

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

FOLDS = SplitConfig(play="both", folds=2, train_fraction=0.5)
IN_TURN = WindowsConfig(order="walk_forward", fold_episodes=6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two symbols of ten-minute bars over six days."""
    (tmp_path / "bars").mkdir()
    for place, name in enumerate(("AAA", "BBB")):
        write_symbol(tmp_path / "bars" / f"{name}.csv", minutes(6), place)
    return tmp_path / "bars"


@pytest.fixture
def serve() -> Iterator[ServingLoopHarness]:
    with running_serving_loop() as running:
        yield running


def prices(folder: Path, **settings: Any) -> PricesConfig:
    usual: dict[str, Any] = {"recorded": recorded(folder), "bars_per_episode": 30, "warmup_bars": 40, "windows": IN_TURN}
    return PricesConfig(**usual | settings)


@pytest.mark.parametrize("count", [1, 4, 10, 70, 200])
def test_a_run_ends_after_its_episodes_each_of_which_is_whole(count: int) -> None:
    short = PricesConfig(bars_per_episode=5, warmup_bars=40)
    ran, _, book = play(
        PipelineConfig(prices=short, episodes=PlayedEpisodesConfig(concurrent=128, count=count, first_round=2), nodes=NodesConfig(blocks=2))
    )
    assert ran.run.steps == 5 * count
    rows = book.rows["episode"]
    assert sorted(int(row["episode"].rpartition("-")[2]) for row in rows) == list(range(256, 256 + count))
    assert not any(row["cut"] for row in rows)


def test_parts_are_the_splits_own_with_one_purge_and_no_name_twice(folder: Path) -> None:
    parts = fold_parts(pipeline(prices(folder, split=FOLDS), concurrent=4, steps=None))  # type: ignore[arg-type]
    assert [(part.fold, part.side) for part in parts] == [(0, "train"), (0, "test"), (1, "train"), (1, "test")]
    assert [part.config.training_enabled for part in parts] == [True, False] * 2
    numbers: list[int] = []
    last = 0
    for part in parts:
        episodes, source = part.config.episodes, source_of(part.config)
        assert episodes.count is not None
        played = range(4 * episodes.first_round, 4 * episodes.first_round + episodes.count)
        windows = [(each.symbols, each.first_ns) for each in source.episodes(played)]
        assert {each.span for each in source.episodes(played)} == {f"{part.side} {part.fold}"}
        if part.side == "test":
            assert Counter(windows) == Counter(dict.fromkeys(windows, 1)), "each window once"
            assert len(windows) == source.n_windows > 4
            assert [first_ns for _, first_ns in windows] == sorted(first_ns for _, first_ns in windows), "in the order of time"
            first = min(each.bars.time_ns[40] for each in source.episodes(played))
            assert first - last >= 39 * 600e9, "the purge is that of the split: the warm-up"
        else:
            last = max(each.last_ns for each in source.episodes(played))
        numbers += played
    assert len(numbers) == len(set(numbers))


@pytest.mark.slow
def test_a_walk_forward_is_one_command_with_figures_by_fold_and_part(
    folder: Path, tmp_path: Path, serve: ServingLoopHarness, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk_forward, "_REST_S", 0.5)
    file = tmp_path / "pipeline.toml"
    file.write_text(
        f"""
        [server]
        address = "{serve.address}"
        connect_timeout_s = 60.0
        [policy]
        action_timeout_s = 60.0
        [episodes]
        concurrent = 4
        [prices]
        bars_per_episode = 30
        warmup_bars = 40
        recorded.paths = ["{folder}"]
        windows = {{ order = "walk_forward", fold_episodes = 6 }}
        split = {{ play = "both", folds = 2, train_fraction = 0.5 }}
        [recording]
        store = "{tmp_path / "store.sqlite"}"
        run_folder = "{tmp_path / "run"}"
        keep_runs = 1
        """,
        encoding="utf-8",
    )
    switch_interval = sys.getswitchinterval()
    assert main(["run", "--config", str(file), "--json", str(tmp_path / "summary.json")]) == 0
    sys.setswitchinterval(switch_interval)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert json.loads((tmp_path / "run" / WALK_FORWARD_FILE).read_text()) == summary
    spans = ["train 0", "test 0", "train 1", "test 1"]
    assert [f"{part['part']} {part['fold']}" for part in summary["parts"]] == spans
    with contextlib.closing(StoreReader(tmp_path / "store.sqlite")) as reader:
        rows = reader.newest("episode", "pipeline", limit=1000)
    played, earned = Counter(row["span"] for row in rows), 0.0
    for part, span in zip(summary["parts"], spans, strict=True):
        figures = part["summary"]
        assert figures["spans"] == {span: played[span]}
        assert figures["episodes_finished"] == played[span] == (6 if span.startswith("train") else played[span])
        assert figures["steps"] == figures["points_recorded"] == 30 * played[span]
        assert figures["reward_sum_client"] == pytest.approx(figures["reward_sum_recorded"], abs=1e-9)
        earned += figures["reward_sum_client"]
        assert figures["reward_sum_server"] == pytest.approx(earned, abs=1e-9), "the server adds up from its start"
        assert figures["comparison"]["measures"]["policy"]["sharpe_ratio"].keys() >= {"low", "median", "high"}
        assert part["weights_seq_no_before"] == figures["weights_seq_no"]
    tested = played["test 0"] + played["test 1"]
    assert len({(row["symbol"], row["first_bar_s"]) for row in rows if row["span"].startswith("test")}) == tested, "each window once"
    assert (summary["train"]["episodes"], summary["test"]["episodes"]) == (12, tested)
    with PolicyClient(serve.address) as client:
        stats = client.stats()
    assert stats.steps_untrained == 30 * tested
    assert stats.steps_completed == 30 * (12 + tested)
    printed = capsys.readouterr().out
    assert [line.split("  ")[0] for line in printed.splitlines()[1:5]] == spans
    assert "all tests" in printed
    replayed = replay(tmp_path / "run")
    assert replayed.status == 0, replayed.out + replayed.err
    steps = [part["summary"]["steps"] for part in summary["parts"]]
    assert [result["steps"] for result in replayed.results] == steps, "all parts are kept, however few runs are"


def test_a_run_that_is_stopped_has_the_figures_of_what_it_played(folder: Path, tmp_path: Path, serve: ServingLoopHarness) -> None:
    config = PipelineConfig(
        server=ServerConnectionConfig(address=serve.address, connect_timeout_s=60.0),  # one attempt, for it is stopped at once
        episodes=PlayedEpisodesConfig(concurrent=4),
        prices=prices(folder, split=FOLDS, windows=WindowsConfig(order="walk_forward", fold_episodes=1_000_000)),
        recording=PipelineRecordingConfig(store=None, run_folder=None),
    )
    stop = StopSignals()
    stop.put("SIGTERM")
    summary = run_walk_forward(config, stop)
    assert [(part.fold, part.part) for part in summary.parts] == [(0, "train")]
    assert summary.test is None
    assert "train 0" in summary.table()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"episodes": {"steps": 100}}, "episodes.steps: expected none with prices.split.play = "),
        ({"episodes": {"count": 100}}, "episodes.count: expected none with prices.split.play = "),
        ({"episodes": {"training_enabled": True}}, "episodes.training_enabled: expected false, or prices.split.learns_on_test"),
        ({"windows": {"order": "random"}}, 'prices.windows.order: expected "walk_forward" with split.play = "both", received \'random\''),
        ({"split": {"play": "both", "folds": 2, "fold": 1}}, "prices.windows.order: expected a split of which all folds are played"),
    ],
)
def test_what_contradicts_a_walk_forward_is_refused(folder: Path, settings: dict[str, Any], message: str) -> None:
    episodes = settings.pop("episodes", {})
    on_files = {"recorded": {"paths": [str(folder)]}, "split": {"play": "both"}, "windows": {"order": "walk_forward"}} | settings
    with pytest.raises(SettingsError) as refused:
        from_table(PipelineConfig, {"prices": on_files, "episodes": episodes}, "pipeline.toml")
    assert str(refused.value).startswith(f"pipeline.toml: {message}")


def test_a_part_without_windows_is_refused_before_there_is_a_server(folder: Path) -> None:
    config = PipelineConfig(prices=prices(folder, split=SplitConfig(play="both", folds=40, train_fraction=0.5)))
    with pytest.raises(SettingsError, match=r"prices\.windows: .*: expected at least one window of 40 bars of warm-up"):
        run_walk_forward(config, StopSignals())


def test_both_parts_at_once_are_refused_where_they_are_not_played_in_turn(folder: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"prices\.split\.play: expected train or test outside of policy-pipeline run, demo and check-future"
    ):
        source_of(PipelineConfig(prices=prices(folder, split=FOLDS)))
