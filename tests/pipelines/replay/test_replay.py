"""A recorded run comes out the same when it is replayed, whatever its server, its nodes and its threads did; another one does not."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.common.errors import ActionTimeoutError, EpisodeLostError, PolicyServerError, ServerUnavailableError
from policyserver.pipelines.config import NodesConfig, PipelineConfig, PlayedEpisodesConfig, PolicyCallsConfig
from policyserver.pipelines.fallback import Fallback
from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.market.rules import RulesConfig
from policyserver.pipelines.nodes.portfolio_node import PortfolioNode
from policyserver.pipelines.nodes.signal_node import SignalNode
from policyserver.pipelines.prices import PricesConfig
from policyserver.pipelines.replay.columns import ActionType
from policyserver.pipelines.replay.event_file import EventFile, EventLogReader, from_batch, to_batch
from policyserver.pipelines.replay.replayed_run import RecordedRun
from policyserver.pipelines.replay.replayer import RecordedPolicy, Replayer
from policyserver.pipelines.replay.turn import StepOutcome, Turn
from policyserver.pipelines.runtime.inbox import NodeConfig
from tests.pipelines.policy_double import PolicyDouble
from tests.pipelines.recorded_prices import fair_game, write_bars
from tests.pipelines.replay.recorded_runs import assert_equal, record, replay, turns_of

pytestmark = pytest.mark.process  # git's, which is asked for the revision

PORTFOLIO = PricesConfig(bars_per_episode=20, warmup_bars=40, symbols=("A", "B", "C"), symbols_per_episode=3)


def config(**options: Any) -> PipelineConfig:
    settings: dict[str, Any] = {
        "seed": 3,
        "worker_number": 0,
        "episodes": PlayedEpisodesConfig(concurrent=8, steps=600),
        "prices": PricesConfig(bars_per_episode=20, warmup_bars=30),
        "stop_timeout_s": 10.0,
    }
    return PipelineConfig(**settings | options)


def on_files(folder: Path, **options: Any) -> PipelineConfig:
    for name, bars in (("AAA", 200), ("BBB", 400)):
        write_bars(folder / f"{name}.csv", fair_game(bars, seed=bars))
    catalog = CatalogConfig((str(folder / "*.csv"),))
    return config(prices=PricesConfig(recorded=catalog, bars_per_episode=20, warmup_bars=30), **options)


def test_a_run_of_several_blocks_and_threads_comes_out_the_same(tmp_path: Path) -> None:
    threads = NodesConfig(2, 2, 3, 2, 2, 2, blocks=2)
    settings = config(episodes=PlayedEpisodesConfig(concurrent=130, steps=2_600), nodes=threads)
    pipeline = record(settings, tmp_path / "run")
    assert_equal(tmp_path / "run", pipeline.run.steps)
    assert {turn.block for turn in turns_of(tmp_path / "run")} == {0, 1}


def test_a_run_on_files_comes_out_the_same(tmp_path: Path) -> None:
    pipeline = record(on_files(tmp_path), tmp_path / "run")
    assert_equal(tmp_path / "run", pipeline.run.steps)


def test_a_run_on_files_that_are_named_from_its_folder_comes_out_the_same_from_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    drawn = {"name": "bootstrap", "recorded": {"paths": ["AAA.csv"]}}
    mixture = {"name": "mixture", "parts": [{"process": "ou"}, {"process": drawn}]}
    for name, prices in (
        ("windows", PricesConfig(recorded=CatalogConfig(("*.csv",)), bars_per_episode=20, warmup_bars=30)),
        ("bootstrap", PricesConfig(process=drawn, bars_per_episode=20, warmup_bars=30)),
        ("mixture", PricesConfig(process=mixture, bars_per_episode=20, warmup_bars=30)),
    ):
        pipeline = record(config(prices=prices), tmp_path / name)
        with monkeypatch.context() as elsewhere:
            elsewhere.chdir("/")
            assert_equal(tmp_path / name, pipeline.run.steps)
        files = json.loads((tmp_path / name / "run.json").read_text())["data"]
        assert [Path(file["path"]).name for file in files] == (["AAA.csv", "BBB.csv"] if name == "windows" else ["AAA.csv"])
    write_bars(tmp_path / "AAA.csv", fair_game(200, seed=0))
    replayed = replay(tmp_path / "bootstrap")
    assert replayed.status == 2
    assert "AAA.csv: expected SHA-256" in replayed.err


@pytest.mark.parametrize("actions", ["hold_buy_sell_close", "simplex_weights", "limit_offsets"])
def test_a_run_with_other_actions_comes_out_the_same(tmp_path: Path, actions: Any) -> None:
    prices = PORTFOLIO if actions == "simplex_weights" else PricesConfig(bars_per_episode=20, warmup_bars=30)
    settings = config(rules=RulesConfig(actions=actions), prices=prices)
    run = tmp_path / "run"
    space = _space(settings)
    rng = np.random.default_rng(0)
    service = AnyActions(lambda observations: np.stack([_draw(space, rng) for _ in observations]))
    pipeline = record(settings, run, service)
    assert_equal(run, pipeline.run.steps)
    assert EventLogReader(run).action.shape == space.shape
    assert any(turn.fills for turn in turns_of(run))


def _space(settings: PipelineConfig) -> Any:
    from policyserver.pipelines.market.rules import Rules
    from policyserver.pipelines.prices.config import make_slots

    return Rules.of(settings.rules).actions.space(make_slots(settings.prices))


def _draw(space: Any, rng: np.random.Generator) -> Any:
    from policyserver.pipelines.baselines import random_actions

    return random_actions(space, rng, 1)[0]


class AnyActions(PolicyDouble):
    """A service whose actions are no numbers of a Discrete."""

    def get_actions(self, episode_ids: Sequence[str], observations: Any) -> Any:
        self._threads.asked = len(episode_ids)
        return self.choose(observations)

    def log_returns_batch(self, episode_ids: Sequence[str], rewards: Sequence[float]) -> None:
        return

    def end_episodes(self, episode_ids: Sequence[str], observations: Any, truncated: Any, *, timeout_s: float | None = None) -> None:
        return


@pytest.mark.parametrize("fallback", ["hold", "flatten"])
def test_answers_that_were_late_are_late_again(tmp_path: Path, fallback: Fallback) -> None:
    service = PolicyDouble()
    calls = 0

    def late(call: str, ids: Sequence[str]) -> dict[int, PolicyServerError] | None:
        nonlocal calls
        if call == "get":
            calls += 1
            return {row: ActionTimeoutError("late") for row in range(len(ids)) if (calls + row) % 5 == 0}
        if call == "log" and calls % 3 == 0:  # nor does the server hear of it at once
            return {row: ServerUnavailableError("away") for row in range(len(ids))}
        return None

    service.fail = late
    pipeline = record(config(policy=PolicyCallsConfig(fallback=fallback)), tmp_path / "run", service)
    assert_equal(tmp_path / "run", pipeline.run.steps)
    outcomes = np.concatenate([turn.decided[0] for turn in turns_of(tmp_path / "run") if turn.decided])
    assert pipeline.fallbacks == (outcomes == StepOutcome.FALLBACK).sum() > 50


def test_episodes_that_waited_for_a_server_or_were_lost_do_so_again(tmp_path: Path) -> None:
    service = PolicyDouble()
    starts = calls = 0

    def trouble(call: str, ids: Sequence[str]) -> dict[int, PolicyServerError] | None:
        nonlocal starts, calls
        if call == "start":
            starts += 1
            if starts in (1, 4, 5):
                raise ServerUnavailableError("away")
        if call == "get":
            calls += 1
            return {0: EpisodeLostError("lost")} if calls % 20 == 0 else None
        return None

    service.fail = trouble
    pipeline = record(config(), tmp_path / "run", service)
    assert_equal(tmp_path / "run", pipeline.run.steps)
    outcomes = np.concatenate([turn.decided[0] for turn in turns_of(tmp_path / "run") if turn.decided])
    assert pipeline.run.endings["lost"] == (outcomes == StepOutcome.LOST).sum() > 3
    assert (outcomes == StepOutcome.WAITS).sum() >= 8


@pytest.mark.parametrize("node", [PortfolioNode, SignalNode])
def test_a_run_whose_nodes_failed_comes_out_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: Any) -> None:
    handle, count = node._process, 0

    def fail(self: Any, batch: list[Any]) -> None:
        nonlocal count
        count += len(batch)
        if count in (11, 12, 31, 32):
            count += 2
            raise RuntimeError("this node fails now and then")
        handle(self, batch)

    monkeypatch.setattr(node, "_process", fail)
    nodes = NodesConfig(blocks=2, inbox=NodeConfig(max_restarts=10))
    settings = config(episodes=PlayedEpisodesConfig(concurrent=128, steps=4_000), nodes=nodes)
    pipeline = record(settings, tmp_path / "run")
    assert pipeline.run.endings["abandoned"] >= 64
    monkeypatch.undo()
    assert_equal(tmp_path / "run", pipeline.run.steps)
    assert any(turn.is_abandoned for turn in turns_of(tmp_path / "run"))


def test_the_log_made_anew_is_the_recorded_one_byte_for_byte_but_for_the_wall_clock(tmp_path: Path) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    record(config(episodes=PlayedEpisodesConfig(concurrent=128, steps=2_000), nodes=NodesConfig(blocks=2)), run)
    again.mkdir()
    recorded = RecordedRun(run)
    replayer = Replayer(recorded.config, recorded.source, RecordedPolicy(recorded.log.action), recorded.log.action, exact=True)
    file = EventFile(again, recorded.log.action, 1 << 30)
    for batch in recorded.log.batches():
        turns = [replayer.replay(turn) for turn in batch]
        for turn, then in zip(turns, batch, strict=True):
            assert turn.wall_ns == 0, "made anew, not handed on"
            turn.wall_ns, turn.call_s = then.wall_ns, then.call_s
        file.write(turns)
    file.close("end")
    for name in ("events.arrows", "events.crc32"):
        assert (run / name).read_bytes() == (again / name).read_bytes()


def test_turns_survive_the_file(tmp_path: Path) -> None:
    rows = np.arange(3)
    turn = Turn(
        2,
        begun=(rows[:1], rows[:1] + 40),
        marked=(rows, np.array([0.1, -0.0, np.nan]), np.array([1e4, 1e-300, np.inf]), np.array([0, -1, 2])),
        asked=(rows, np.zeros((3, 1, 3)), np.ones((3, 10), np.float32)),
        decided=(np.zeros(3, np.int8), np.full(3, 7), np.array([[0.5, 0.25]] * 3, np.float32)),
        is_abandoned=True,
        call_s=0.25,
        wall_ns=5,
    )
    action = ActionType("float32", (2,))
    first, second = from_batch(to_batch([turn, Turn(1)], action), action)
    assert (first.block, first.is_abandoned, first.call_s, first.wall_ns, second.block) == (2, True, 0.25, 5, 1)
    assert first.marked[1].tobytes() == turn.marked[1].tobytes()
    assert first.decided[2].tolist() == [[0.5, 0.25]] * 3
    assert first.asked[2].tolist() == [pytest.approx(sum(np.sqrt(np.arange(1, 11))))] * 3
    assert (second.marked, second.opened) == ((), ())


# What is not equal ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on files."""
    folder = tmp_path_factory.mktemp("recorded")
    record(on_files(folder), folder / "run")
    return folder


@pytest.fixture
def run(recorded: Path, tmp_path: Path) -> Path:
    """A copy of its folder."""
    return Path(shutil.copytree(recorded / "run", tmp_path / "run"))


def rewrite(run: Path, change: Any) -> None:
    """Write the log of a run again, its turns changed."""
    log = EventLogReader(run)
    batches = list(log.batches())
    for name in ("events.arrows", "events.crc32"):
        (run / name).unlink()
    file = EventFile(run, log.action, 1 << 30)
    turns = [turn for batch in batches for turn in batch]
    change(turns)
    file.write(turns)
    file.close("end")


def scale_reward(turns: list[Turn], factor: float) -> tuple[Turn, int]:
    turn = next(turn for turn in turns[20:] if turn.marked and (turn.marked[1] != 0).any())
    place = int(np.flatnonzero(turn.marked[1])[0])
    rewards = turn.marked[1].copy()
    rewards[place] *= factor
    turn.marked = (turn.marked[0], rewards, *turn.marked[2:])
    return turn, place


def test_the_first_difference_is_named(run: Path) -> None:
    found: list[Any] = []
    rewrite(run, lambda turns: found.extend(scale_reward(turns, 1.0 + 1e-15 * 8)))
    replayed = replay(run)
    turn, place = found
    result = replayed.result
    assert (replayed.status, result["equal"], result["field"]) == (1, False, "marked.reward")
    assert result["recorded"] == repr(float(turn.marked[1][place])) != result["replayed"]
    assert f"different from {result['episode']}, step {result['step']}, marked.reward: recorded {result['recorded']}" in replayed.out
    assert result["episode"].partition("-")[0] in ("AAA", "BBB")
    assert 0 <= result["step"] < 20


def test_another_action_than_the_recorded_one_shows_in_what_follows(run: Path) -> None:
    def other_action(turns: list[Turn]) -> None:
        turn = turns[30]
        actions = turn.decided[2].copy()
        actions[0] = (actions[0] + 1) % 3
        turn.decided = (*turn.decided[:2], actions)

    rewrite(run, other_action)
    replayed = replay(run)
    assert replayed.status == 1
    assert replayed.result["field"].partition(".")[0] in ("fills", "marked", "asked")


@pytest.mark.parametrize(("factor", "status"), [(1.0 + 1e-12, 0), (1.0 + 1e-4, 1)])
def test_where_versions_differ_numbers_are_compared_within_1e_9_and_the_text_says_so(run: Path, factor: float, status: int) -> None:
    rewrite(run, lambda turns: scale_reward(turns, factor))
    made_with = json.loads((run / "run.json").read_text())
    made_with["versions"]["numpy"] = "1.0"
    (run / "run.json").write_text(json.dumps(made_with))
    replayed = replay(run)
    assert (replayed.status, replayed.result["exact"]) == (status, False)
    assert f"compared within 1e-9 (numpy 1.0, here {np.__version__})" in replayed.out


# What can't be replayed ----------------------------------------------------------------------------------------------------------------


def not_replayable(run: Path) -> str:
    replayed = replay(run)
    assert replayed.status == 2, replayed.out
    (line,) = replayed.err.splitlines()
    return line


def test_a_changed_byte_is_found_wherever_it_is(run: Path) -> None:
    for name in ("events.arrows", "events.crc32"):
        whole = (run / name).read_bytes()
        places = range(0, len(whole), max(1, len(whole) // 40))
        for place in (*places, len(whole) - 1):
            damaged = bytearray(whole)
            damaged[place] ^= 0x41
            (run / name).write_bytes(damaged)
            line = not_replayable(run)
            assert "damaged" in line or "event log" in line, (name, place, line)
        (run / name).write_bytes(whole)
    assert replay(run).status == 0


def test_a_log_without_its_end_is_not_taken_for_a_whole_one(run: Path) -> None:
    sums = (run / "events.crc32").read_bytes()
    (run / "events.arrows").write_bytes((run / "events.arrows").read_bytes()[:-4])
    assert "damaged" in not_replayable(run)
    (run / "events.crc32").write_bytes(b"\n".join(sums.splitlines()[:-1]) + b"\n")  # as if it had been killed before the end
    replayed = replay(run)
    assert (replayed.status, replayed.result["end"]) == (0, "killed")


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.999])
def test_a_cut_tail_is_recognised_and_left_out(run: Path, kept: float) -> None:
    lines = (run / "events.crc32").read_bytes().splitlines(keepends=True)
    size = int(lines[-1].split()[0])
    cut = max(int(size * kept), int(lines[0].split()[0]))
    (run / "events.arrows").write_bytes((run / "events.arrows").read_bytes()[:cut])
    (run / "events.crc32").write_bytes(b"".join(line for line in lines if int(line.split()[0]) <= cut) + b"12")
    replayed = replay(run)
    assert (replayed.status, replayed.result["end"]) == (0, "killed")
    assert "; the log has no end: the run was killed, or goes on" in replayed.out


def test_a_data_file_that_has_changed_or_is_missing_is_named(tmp_path: Path) -> None:
    record(on_files(tmp_path), tmp_path / "run")
    file = tmp_path / "BBB.csv"
    whole = file.read_text()
    file.write_text(whole.replace(",1\n", ",2\n", 1))
    line = not_replayable(tmp_path / "run")
    assert line.startswith(f"policy-pipeline: not replayable: {file}: expected SHA-256 ")
    assert line.endswith("the file has changed")
    file.unlink()
    assert not_replayable(tmp_path / "run") == f"policy-pipeline: not replayable: {file}: expected the run's file of bars, received none"
    file.write_text(whole)
    write_bars(tmp_path / "CCC.csv", fair_game(100, seed=1))
    assert f"{tmp_path / 'CCC.csv'}: expected the run's files of bars alone" in not_replayable(tmp_path / "run")


def test_a_log_of_another_version_and_folders_without_one_are_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyserver.pipelines.replay.event_file.VERSION", "2")
    assert "expected an event log of version 2, received version 1" in not_replayable(run)
    monkeypatch.undo()
    (run / "events.crc32").unlink()
    assert "events.crc32: expected an event log, received No such file" in not_replayable(run)
    (run / "run.json").unlink()
    assert f"{run}: expected the folder of a recorded run" in not_replayable(run)


def test_settings_that_were_changed_afterwards_are_noticed(run: Path) -> None:
    file = run / "pipeline.toml"
    file.write_text(file.read_text().replace("seed = 3", "seed = 4", 1))
    assert "expected the run's seed 3, received 4" in not_replayable(run)


# How the log is kept -------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_full_log_ends_is_counted_and_is_replayed_up_to_there(tmp_path: Path) -> None:
    settings = config(episodes=PlayedEpisodesConfig(concurrent=256, steps=120_000), nodes=NodesConfig(blocks=2))
    settings = dataclasses.replace(settings, recording=dataclasses.replace(settings.recording, max_event_bytes=1_000_000))
    full: list[bool] = []
    pipeline = record(settings, tmp_path / "run", on_full=lambda: full.append(True))
    size = (tmp_path / "run" / "events.arrows").stat().st_size
    assert size <= 1_000_000
    assert full == [], "the run goes on by default"
    replayed = replay(tmp_path / "run")
    assert (replayed.status, replayed.result["end"]) == (0, "full")
    assert 0 < replayed.result["steps"] < pipeline.run.steps
    assert "; the event log was full" in replayed.out


def test_parts_of_a_run_that_share_a_folder_are_replayed_one_after_the_other(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = record(config(), run).run.steps
    settings = config(episodes=PlayedEpisodesConfig(concurrent=8, steps=300, first_round=5))
    second = record(settings, run).run.steps
    replayed = replay(run)
    assert replayed.status == 0
    assert [(Path(each["folder"]).name, each["steps"]) for each in replayed.results] == [("1", first), ("run", second)]


def test_a_log_of_other_blocks_is_refused_in_a_line(tmp_path: Path) -> None:
    record(config(nodes=NodesConfig(blocks=2)), tmp_path / "run")
    settings = tmp_path / "run" / "pipeline.toml"
    settings.write_text(settings.read_text(encoding="utf-8").replace("blocks = 2", "blocks = 1"), encoding="utf-8")
    replayed = replay(tmp_path / "run")
    assert replayed.status == 2
    assert "the run shared its episodes among blocks otherwise" in replayed.err
    assert "Traceback" not in replayed.err
