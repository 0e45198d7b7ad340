"""The demo as a user runs it: by command, with a real policy server."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.pipelines.replay.recorded_runs import assert_kept
from tests.pipelines.shell_session import CTRL_C, CTRL_Z, FIRST_SCREEN, PROMPT, SHOWN_CURSOR, ShellSession

START_S = 300.0
STOP_S = 10.0
USUAL_START_S = 10.0
"""Of a demo with its server, on a machine on which it stops within `STOP_S`; on a slower one both take longer."""
END_S = 120.0
"""For an end that is not measured."""
TURNS = 3
"""So often an end is measured at most, for the machine's speed is not the same from the start to the end."""

SUMMARY_KEYS = frozenset(
    [
        "seed",
        "process",
        "steps",
        "seconds",
        "steps_per_s",
        "episodes_finished",
        "episodes_leaked",
        "action_latency_p50_ms",
        "action_latency_p99_ms",
        "action_latency_max_ms",
        "weights_seq_no",
        "learner_updates",
        "steps_trained",
        "steps_dropped",
        "staleness_mean",
        "points_recorded",
        "reward_sum_client",
        "reward_sum_server",
        "reward_sum_recorded",
        "return_mean",
        "return_stderr",
        "no_trade_mean",
        "no_trade_stderr",
        "random_mean",
        "random_stderr",
        "profit_mean",
        "costs_mean",
        "profit_plus_costs_stderr",
        "regressor_skill",
        "regressor_skill_stderr",
        "nodes",
    ]
)

pytestmark = [pytest.mark.timeout(1500), pytest.mark.alone]


@dataclass
class Demo:
    """A running `policy-pipeline demo`, its output read line by line."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def wait_for(self, pattern: str, timeout_s: float = START_S, after: int = 0) -> int:
        """Wait for a line that has `pattern` and return its number."""

        def found() -> int | None:
            return next((n for n, line in enumerate(self.lines) if n >= after and re.search(pattern, line)), None)

        with self.changed:
            self.changed.wait_for(lambda: found() is not None or self.process.poll() is not None, timeout_s)
            number = found()
        assert number is not None, f"no line with {pattern!r} in:\n" + "\n".join(self.lines)
        return number

    @property
    def servers(self) -> list[psutil.Process]:
        """The policy servers among the demo's children."""
        return [child for child in psutil.Process(self.process.pid).children() if "serve" in child.cmdline()]


@contextmanager
def running_demo(*arguments: str) -> Iterator[Demo]:
    command = [str(Path(sys.executable).with_name("policy-pipeline")), "demo", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    demo = Demo(process)
    reader = threading.Thread(target=demo.read, daemon=True)
    reader.start()
    try:
        yield demo
    finally:
        if process.poll() is None:
            everyone = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for child in everyone:
                if child.is_running():
                    child.kill()
        process.wait()
        reader.join(30.0)
        if process.stdout is not None:
            process.stdout.close()


def finish(demo: Demo, timeout_s: float) -> None:
    status = demo.process.wait(timeout_s)
    assert status == 0, "\n".join(demo.lines)


@dataclass(frozen=True)
class Finished:
    """A demo that has run to its end."""

    summary: dict[str, Any]
    output: str
    runs: Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("demo")
    summary, runs = folder / "summary.json", folder / "runs"
    arguments = ("--episodes", "16", "--steps", "9000", "--seed", "5", "--json", str(summary), "--runs", str(runs))
    with running_demo(*arguments) as demo:
        finish(demo, 2 * START_S)
        return Finished(json.loads(summary.read_text()), "\n".join(demo.lines), runs)


def assert_books_agree(summary: dict[str, Any]) -> None:
    assert summary["episodes_leaked"] == 0
    assert summary["points_recorded"] == summary["steps"]
    assert summary["reward_sum_server"] == pytest.approx(summary["reward_sum_client"], abs=1e-6)
    assert summary["reward_sum_recorded"] == pytest.approx(summary["reward_sum_client"], abs=1e-6)


def test_the_summary_has_every_key_and_the_books_agree(finished: Finished) -> None:
    summary = finished.summary
    assert set(summary) >= SUMMARY_KEYS
    assert (summary["seed"], summary["process"]) == (5, "ou")
    assert summary["steps"] >= 9_000
    assert summary["steps_per_s"] == pytest.approx(summary["steps"] / summary["seconds"])
    assert summary["learner_updates"] >= 1
    assert summary["weights_seq_no"] >= 1
    assert summary["steps_trained"] > 0
    assert summary["steps_dropped"] <= 0.05 * summary["steps"]
    assert summary["no_trade_mean"] == 0.0
    assert summary["random_mean"] < 0.0
    assert_books_agree(summary)


def test_the_nodes_are_those_of_the_design_and_none_failed(finished: Finished) -> None:
    nodes = {node["name"]: node for node in finished.summary["nodes"]}
    assert list(nodes) == ["market", "execution", "reward", "signal", "policy", "portfolio", "episode"]
    assert all(nodes[name]["threads"] >= 2 for name in ("signal", "policy", "reward"))
    assert all(node["failures"] == node["restarts"] == node["overflowed"] == 0 for node in nodes.values())
    steps, blocks = finished.summary["steps"], nodes["policy"]["processed"]
    assert steps / 16 <= blocks < steps / 2, "an event is a block of episodes, here of up to all 16"


def test_the_run_folder_has_weights_records_and_settings(finished: Finished) -> None:
    (run,) = finished.runs.iterdir()
    assert re.fullmatch(r"\d{8}T\d{6}Z-seed5", run.name)
    assert finished.output.splitlines()[0] == f"new run {run}"
    for name in ("store.sqlite", "demo_server.toml", "server.out"):
        assert (run / name).is_file()
    assert_kept(run, finished.runs.parent / "summary.json", 9_000)
    assert any((run / "checkpoints").glob("checkpoint-*"))
    assert "live page: http://127.0.0.1:" in finished.output


@pytest.mark.slow
def test_a_resumed_run_says_so_and_goes_on_with_weights_and_prices(finished: Finished, tmp_path: Path) -> None:
    (run,) = finished.runs.iterdir()
    arguments = ("--resume", "--steps", "9000", "--json", str(tmp_path / "resumed.json"), "--runs", str(finished.runs))
    with running_demo(*arguments) as demo:
        finish(demo, 2 * START_S)
        assert demo.lines[0] == f"resuming {run}"
    summary = json.loads((tmp_path / "resumed.json").read_text())
    assert summary["weights_seq_no"] >= finished.summary["weights_seq_no"]
    assert summary["steps_trained"] >= finished.summary["steps_trained"]
    assert summary["seed"] == 5
    assert_books_agree(summary)
    assert list(finished.runs.iterdir()) == [run]


def test_two_demos_started_together_have_a_server_each(tmp_path: Path) -> None:
    said = "starting the policy server on "
    with running_demo("--runs", str(tmp_path / "a")) as first, running_demo("--runs", str(tmp_path / "b")) as second:
        addresses = [demo.lines[demo.wait_for(said)].partition(said)[2].partition(" ")[0] for demo in (first, second)]
    assert addresses[0] != addresses[1], "one of them would play with the server of the other"


@pytest.mark.slow
def test_ctrl_c_stops_everything_within_ten_seconds_with_a_summary(tmp_path: Path) -> None:
    for turn in range(TURNS):
        seconds, most_s = stopped_by_ctrl_c(tmp_path / str(turn))
        if seconds <= most_s:
            break
    assert seconds <= most_s


def stopped_by_ctrl_c(folder: Path) -> tuple[float, float]:
    """Press Ctrl-C on a demo; return how long its end took, and how long it may take on this machine as it is, seconds."""
    folder.mkdir()
    started = time.monotonic()
    with running_demo("--runs", str(folder / "runs"), "--json", str(folder / "summary.json")) as demo:
        demo.wait_for(r"steps \|")
        everyone = psutil.Process(demo.process.pid).children(recursive=True)
        assert demo.servers
        began = time.monotonic()
        demo.process.send_signal(signal.SIGINT)
        finish(demo, END_S)
        seconds = time.monotonic() - began
    psutil.wait_procs(everyone, timeout=60.0)
    assert [process for process in everyone if process.is_running()] == [], "nothing is left behind"
    assert_books_agree(json.loads((folder / "summary.json").read_text()))
    assert any(line.startswith("reward ledgers") for line in demo.lines)
    return seconds, STOP_S * max(1.0, (began - started) / USUAL_START_S)


@pytest.mark.slow
def test_the_server_stops_in_order_when_the_demo_is_killed(tmp_path: Path) -> None:
    with running_demo("--steps", "1000000", "--runs", str(tmp_path)) as demo:
        demo.wait_for("live page")
        (server,) = demo.servers
        demo.process.kill()
        gone, alive = psutil.wait_procs([server], timeout=END_S)
    assert (len(gone), alive) == (1, [])
    (log,) = tmp_path.glob("*/server.out")
    assert log.read_text().rstrip().endswith("stopped")


@pytest.mark.slow
def test_a_server_that_is_killed_is_started_again_and_the_pipelines_go_on_with_new_episodes(tmp_path: Path) -> None:
    arguments = ("--runs", str(tmp_path / "runs"), "--json", str(tmp_path / "summary.json"), "--steps", "10000000")
    with running_demo(*arguments) as demo:
        line = demo.wait_for(r"updates [1-9]\d* \|")
        (server,) = demo.servers
        server.kill()
        line = demo.wait_for("the policy server died with status -9, started again", after=line)
        line = demo.wait_for(r"lost [1-9]\d*$", after=line)
        demo.wait_for(r" [1-9][\d,]*/s .* updates [1-9]\d* \|", after=line)
        demo.process.send_signal(signal.SIGINT)
        finish(demo, END_S)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["server_restarts"] == 1
    assert 0 < summary["episodes_lost"] <= 64, "those that the server had answered and that were not at their ends already"
    assert summary["episodes_leaked"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirected", "environment"),
    [("| head -3", {}), ("> /dev/full", {}), ("> out", {"PYTHONIOENCODING": "ascii"})],
    ids=["cut off", "full", "ascii"],
)
def test_a_demo_whose_output_is_lost_plays_to_its_end(redirected: str, environment: dict[str, str], tmp_path: Path) -> None:
    command = f"set -o pipefail; {Path(sys.executable).with_name('policy-pipeline')} demo --steps 6000 --episodes 16 {redirected}"
    ended = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=2 * START_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    (summary,) = tmp_path.glob("runs/*/summary.json")
    assert json.loads(summary.read_text())["steps"] >= 6000
    if environment:
        assert re.search(r"return +[+-].* \+- ", (tmp_path / "out").read_text(encoding="ascii"))


@pytest.mark.slow
def test_ctrl_z_gives_a_demos_terminal_back_and_fg_goes_on_with_it(tmp_path: Path) -> None:
    with contextlib.closing(ShellSession(tmp_path)) as shell:
        shell.type(f"{Path(sys.executable).with_name('policy-pipeline')} demo --steps 100000000\n")
        shell.wait_for("of 100,000,000", timeout_s=START_S)
        at = shell.type(CTRL_Z)
        text = shell.wait_for(rf"Stopped[\s\S]*{PROMPT}", at)
        assert SHOWN_CURSOR in text
        assert FIRST_SCREEN in text
        at = shell.type("fg\n")
        shell.wait_for("of 100,000,000", at)
        at = shell.type(CTRL_C)
        shell.wait_for(rf"reward ledgers[\s\S]*{PROMPT}", at, END_S)
        at = shell.type("echo status=$?\n")
        shell.wait_for("status=0", at)
