"""What is measured: each case is a server set-up, a load and the figures to reach."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.live_server import serving

MLP = """
[algorithm]
name = "PPO"
[algorithm.training]
train_batch_size_per_learner = 4000
minibatch_size = 256
num_epochs = 6
[algorithm.rl_module.model_config]
fcnet_hiddens = [256, 256]
use_lstm = false
[episodes]
max_open = 20000
"""
NO_EXPLORATION = "[algorithm.env_runners]\nexplore = false\n"
STARTS = 3


@dataclass(frozen=True)
class Bar:
    """A figure to reach."""

    key: str
    """Which of the result's keys it is about."""
    at_least: float = float("-inf")
    """Smallest value that meets it."""
    at_most: float = float("inf")
    """Largest value that meets it."""

    def met(self, result: Mapping[str, Any]) -> bool:
        """Tell whether a result meets the bar."""
        return bool(self.at_least <= result[self.key] <= self.at_most)

    def __str__(self) -> str:
        if self.at_least == self.at_most:
            return f"{self.key} = {self.at_least:,.0f}"
        return f"{self.key} >= {self.at_least:,.0f}" if self.at_least > float("-inf") else f"{self.key} <= {self.at_most:,.0f}"


@dataclass(frozen=True)
class Case:
    """One measurement."""

    name: str
    """Name of the case and of its file."""
    says: str
    """What is done, in one line for the report."""
    measure: Callable[[float], dict[str, Any]]
    """Takes the seconds to measure for; returns the figures."""
    bars: tuple[Bar, ...] = field(default=())
    """The figures to reach."""
    floor_callers: int | None = None
    """Callers of the echo that the throughput is compared with."""


def _loaded(load: str, options: Mapping[str, Any], config: str = MLP) -> Callable[[float], dict[str, Any]]:
    """Return a measurement that puts one load on one fresh server, twice: the figures are of the second time.

    What the first run leaves in the server's memory are pools and caches; what the second adds to that is what a server loses.
    """

    def measure(seconds: float) -> dict[str, Any]:
        given = dict(options) if load == "open_many" else {**options, "seconds": seconds}
        with tempfile.TemporaryDirectory() as folder, serving(config, Path(folder)) as server:
            command = [sys.executable, "-m", "tests.benchmarks.load", load, server.address, json.dumps(given)]
            memory_mb = [server.memory_mb()]
            for _ in range(2):
                cpu_s = server.cpu_s()
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=seconds + 300, check=True)
                cpu_s = server.cpu_s() - cpu_s
                memory_mb.append(server.memory_mb())
        result: dict[str, Any] = json.loads(done.stdout)
        return {
            **result,
            "cpu_us_per_action": cpu_s * 1e6 / result["actions_total"],
            "memory_first_mb": memory_mb[1] - memory_mb[0],
            "memory_again_mb": memory_mb[2] - memory_mb[1],
            "net": "MLP 256-256",
            "learner": "busy" if options["training"] else "idle",
        }

    return measure


def _demo_closed_loop(seconds: float) -> dict[str, Any]:
    """Run the demo as a user does, for about as many steps as the time allows, and read its summary."""
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
    shown = ("steps", "seconds", "episodes_finished", "episodes_leaked", "steps_trained", "steps_dropped", "staleness_mean")
    latencies = {f"{name}_ms": told[f"action_latency_{name}_ms"] for name in ("p50", "p99", "max")}
    return {"steps_per_s": told["steps_per_s"], **latencies, **{key: told[key] for key in shown}, "net": "the demo's", "learner": "busy"}


def _startup(_: float) -> dict[str, Any]:
    """Time from the command to ready, with the default set-up; each start has a run folder of its own."""
    starts_ms = []
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory() as folder, serving("", Path(folder)) as server:
            starts_ms.append(server.startup_s * 1e3)
    starts_ms.sort()
    return {"steps_per_s": None, "p50_ms": starts_ms[STARTS // 2], "p99_ms": starts_ms[-1], "max_ms": starts_ms[-1], "starts": STARTS}


_THREADS = {"episode_steps": 200}
_MANY = {"episodes": 10_000, "rounds": 20, "rows_per_call": 1_000}
_NONE_LEAKED = (
    Bar("episodes_open", at_least=10_000),
    Bar("episodes_leaked", 0, 0),
    Bar("reward_sum_off_by", 0, 0),
    Bar("memory_again_mb", at_most=10),
)

CASES = (
    Case("startup", f"`policy-server serve` to ready, {STARTS} starts", _startup, (Bar("max_ms", at_most=20_000),)),
    Case(
        "threads_1_mlp",
        "1 blocking thread, learner idle",
        _loaded("threads", {**_THREADS, "callers": 1, "training": False}),
        floor_callers=1,
    ),
    Case(
        "threads_64_mlp",
        "64 blocking threads of one client, learner idle",
        _loaded("threads", {**_THREADS, "callers": 64, "training": False}),
        floor_callers=64,
    ),
    Case(
        "threads_64_mlp_busy",
        "the same while PPO trains on these steps",
        _loaded("threads", {**_THREADS, "callers": 64, "training": True}),
        (Bar("steps_per_s", at_least=6_000), Bar("p99_ms", at_most=25), Bar("max_ms", at_most=250)),
        floor_callers=64,
    ),
    Case(
        "vector_256_mlp",
        "1 caller that steps 256 episodes with each call, learner idle",
        _loaded("vector", {**_THREADS, "episodes": 256, "training": False}),
        floor_callers=64,
    ),
    Case(
        "open_10000_mlp",
        "10,000 episodes open at once, stepped in random order through one client, 1,000 with each call; no exploration, learner idle",
        _loaded("open_many", {**_MANY, "training": False, "known_actions": True}, MLP + NO_EXPLORATION),
        (*_NONE_LEAKED, Bar("actions_mixed_up", 0, 0)),
        floor_callers=64,
    ),
    Case(
        "open_10000_mlp_busy",
        "the same while PPO trains on these steps, with exploration",
        _loaded("open_many", {**_MANY, "training": True, "known_actions": False}),
        (*_NONE_LEAKED, Bar("returns_mixed_up", 0, 0)),
        floor_callers=64,
    ),
    Case(
        "demo_closed_loop",
        "`policy-pipeline demo`: the whole application, learning",
        _demo_closed_loop,
        (Bar("steps_per_s", at_least=1_500),),
    ),
)
