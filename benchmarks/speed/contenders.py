"""What is measured of this project: a server under a load, the hand-off, the demo, the start."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.speed.case import Contender
from benchmarks.speed.peers import table
from benchmarks.speed.servers import Servers
from benchmarks.windows import Figures, Window
from tests.live_server import Serving, serving

STARTS = 3
MEMORY_LOADS = ("open_idle", "finish_many")
FIXED_LOADS = ("open_many", *MEMORY_LOADS)  # of so many steps or episodes, however long they take


def loaded(load: str, options: Mapping[str, Any], config: str, net: str, *, unix: bool = False) -> Contender:
    """Put one load on a server, for each window a load process of its own.

    `memory_before_mb` and `memory_mb` are what the serving process held before a window and after it.
    """

    @contextmanager
    def contender(servers: Servers) -> Iterator[Window]:
        server = servers.running(config, unix=unix)

        def window(seconds: float) -> Figures:
            memory_before_mb, cpu_s = server.memory_mb(), server.cpu_s()
            result = run_load(server, load, options, seconds)
            cpu_s = server.cpu_s() - cpu_s
            memory_mb = server.memory_mb()
            trained = bool(options.get("training", True))
            if trained:
                server.let_learner_rest()
            return {
                **result,
                "cpu_us_per_action": cpu_s * 1e6 / result["actions_total"],
                "memory_before_mb": memory_before_mb,
                "memory_mb": memory_mb,
                "net": net,
                "learner": "busy" if trained else "idle",
            }

        yield window

    return contender


def run_load(server: Serving, load: str, options: Mapping[str, Any], seconds: float) -> Figures:
    """Run one load in a process of its own and return what it counted."""
    given = dict(options)
    if load not in FIXED_LOADS:
        given["seconds"] = seconds
    if load in MEMORY_LOADS:
        given["server_pid"] = server.process.pid
    command = [sys.executable, "-m", "benchmarks.speed.loads", load, server.address, json.dumps(given)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=seconds * 2 + 900, check=True)
    result: Figures = json.loads(done.stdout)
    return result


def hand_off(model_config: dict[str, Any], net: str) -> Contender:
    """Measure the way from finished episodes to the learner's input."""

    @contextmanager
    def contender(servers: Servers) -> Iterator[Window]:
        def window(seconds: float) -> Figures:
            command = [sys.executable, "-m", "benchmarks.speed.hand_off", json.dumps(model_config), str(seconds)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=seconds * 4 + 300, check=True)
            return {**json.loads(done.stdout.splitlines()[-1]), "net": net, "learner": "idle"}

        yield window

    return contender


def pipeline_cpu(episodes: int) -> Contender:
    """Measure the CPU that a pipeline's own nodes take, without a server."""

    @contextmanager
    def contender(servers: Servers) -> Iterator[Window]:
        def window(seconds: float) -> Figures:
            command = [sys.executable, "-m", "benchmarks.speed.pipeline_cpu", str(episodes), str(seconds)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=seconds * 4 + 300, check=True)
            return {**json.loads(done.stdout.splitlines()[-1]), "net": "none", "learner": "none"}

        yield window

    return contender


def learner(name: str, device: str = table.CPU) -> Contender:
    """Measure the updates of one of the learners of `benchmarks.speed.learner`, on the CPU or on a GPU."""
    return lambda servers: table.learner(name, device)


@contextmanager
def demo_closed_loop(servers: Servers) -> Iterator[Window]:
    """Run the demo as a user does, for about as many steps as the time allows, and read its summary."""

    def window(seconds: float) -> Figures:
        with tempfile.TemporaryDirectory() as folder:
            summary = Path(folder) / "summary.json"
            command = [str(Path(sys.executable).with_name("policy-pipeline")), "demo", "--json", str(summary)]
            subprocess.run(
                [*command, "--steps", str(int(seconds * 3000)), "--runs", folder],
                stdout=subprocess.DEVNULL,
                timeout=seconds * 10 + 300,
                check=True,
            )
            told = json.loads(summary.read_text(encoding="utf-8"))
        shown = ("steps_per_s", "steps", "seconds", "episodes_finished", "episodes_leaked", "steps_trained", "steps_dropped")
        latencies = {f"{name}_ms": told[f"action_latency_{name}_ms"] for name in ("p50", "p99", "max")}
        figures = {key: told[key] for key in (*shown, "staleness_mean")}
        return {**figures, **latencies, "net": "the demo's", "learner": "busy"}

    yield window


@contextmanager
def startup(servers: Servers) -> Iterator[Window]:
    """Time from the command to ready, with the default set-up; each start has a run folder of its own."""

    def window(_: float) -> Figures:
        starts_ms = []
        for _ in range(STARTS):
            with tempfile.TemporaryDirectory() as folder, serving("", Path(folder)) as server:
                starts_ms.append(server.startup_s * 1e3)
        starts_ms.sort()
        return {"p50_ms": starts_ms[STARTS // 2], "p99_ms": starts_ms[-1], "max_ms": starts_ms[-1], "starts": STARTS}

    yield window
