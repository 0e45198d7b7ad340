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
LSTM = MLP.replace("use_lstm = false", "use_lstm = true\nlstm_cell_size = 256\nvf_share_layers = true")
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
            return f"{self.key} = {self.at_least:,g}"
        return f"{self.key} >= {self.at_least:,g}" if self.at_least > float("-inf") else f"{self.key} <= {self.at_most:,g}"


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
    idle: str | None = None
    """The case with an idle learner that this one, with a busy learner, is compared with, if both are measured in one run."""


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
            "net": "LSTM 256" if config is LSTM else "MLP 256-256",
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


def _hand_off(model_config: dict[str, Any], net: str) -> Callable[[float], dict[str, Any]]:
    def measure(seconds: float) -> dict[str, Any]:
        command = [sys.executable, "-m", "tests.benchmarks.hand_off", json.dumps(model_config), str(seconds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=seconds * 4 + 300, check=True)
        return {**json.loads(done.stdout.splitlines()[-1]), "net": net, "learner": "idle"}

    return measure


_HIDDEN = {"fcnet_hiddens": [256, 256], "use_lstm": False}
_LSTM_256 = {"fcnet_hiddens": [256, 256], "use_lstm": True, "lstm_cell_size": 256, "vf_share_layers": True}

_STEPS = {"episode_steps": 200}
_MANY = {"episodes": 10_000, "rounds": 20, "rows_per_call": 1_000}
_NONE_LEAKED = (
    Bar("episodes_open", at_least=10_000),
    Bar("episodes_leaked", 0, 0),
    Bar("reward_sum_off_by", 0, 0),
    Bar("memory_again_mb", at_most=10),
)
_BUSY = (Bar("throughput_of_idle", at_least=0.8), Bar("p99_of_idle", at_most=2.0))


def _pair(
    name: str, says: str, load: str, options: Mapping[str, Any], bars: tuple[Bar, ...], callers: int, net: str = MLP, *more: Bar
) -> tuple[Case, Case]:
    """Return a case with the learner idle, and the same while PPO trains on these very steps."""
    idle = Case(name, f"{says}, learner idle", _loaded(load, {**options, "training": False}, net), bars, callers)
    busy = Case(
        f"{name}_busy",
        "the same while PPO trains on these steps",
        _loaded(load, {**options, "training": True}, net),
        (*_BUSY, *more),
        callers,
        name,
    )
    return idle, busy


def _threads(callers: int, bars: tuple[Bar, ...], *more: Bar) -> tuple[Case, Case]:
    says = f"{callers} blocking thread{'s of one client' if callers > 1 else ''}"
    return _pair(f"threads_{callers}_mlp", says, "threads", {**_STEPS, "callers": callers}, bars, min(callers, 64), MLP, *more)


_HANDED_OVER = (
    "40,000 steps in episodes of 50, from a call of `sample()` on the serving actor to the list of episodes in the learner's process"
)
_VECTOR = "1 caller that steps 256 episodes with each call"

CASES = (
    Case("startup", f"`policy-server serve` to ready, {STARTS} starts", _startup, (Bar("max_ms", at_most=20_000),)),
    *_threads(1, (Bar("p50_ms", at_most=0.9), Bar("p99_ms", at_most=2.5))),
    *_threads(64, (Bar("steps_per_s", at_least=14_000), Bar("p99_ms", at_most=10)), Bar("max_ms", at_most=100)),
    *_threads(256, (Bar("steps_per_s", at_least=22_000),)),
    *_pair("vector_256_mlp", _VECTOR, "vector", {**_STEPS, "episodes": 256}, (Bar("steps_per_s", at_least=100_000),), 64),
    *_pair("vector_256_lstm", _VECTOR, "vector", {**_STEPS, "episodes": 256}, (Bar("steps_per_s", at_least=23_000),), 64, LSTM),
    Case(
        "open_10000_mlp",
        "10,000 episodes open at once, stepped in random order through one client, 1,000 with each call; no exploration, learner idle",
        _loaded("open_many", {**_MANY, "training": False, "known_actions": True}, MLP + NO_EXPLORATION),
        (Bar("steps_per_s", at_least=120_000), *_NONE_LEAKED, Bar("actions_mixed_up", 0, 0)),
        floor_callers=64,
    ),
    Case(
        "open_10000_mlp_busy",
        "the same while PPO trains on these steps, with exploration",
        _loaded("open_many", {**_MANY, "training": True, "known_actions": False}),
        (*_BUSY, *_NONE_LEAKED, Bar("returns_mixed_up", 0, 0)),
        floor_callers=64,
        idle="open_10000_mlp",
    ),
    Case("hand_off_mlp", _HANDED_OVER, _hand_off(_HIDDEN, "MLP 256-256"), (Bar("steps_per_s", at_least=200_000),)),
    Case("hand_off_lstm", _HANDED_OVER, _hand_off(_LSTM_256, "LSTM 256"), (Bar("steps_per_s", at_least=150_000),)),
    Case(
        "demo_closed_loop",
        "`policy-pipeline demo`: the whole application, learning",
        _demo_closed_loop,
        (Bar("steps_per_s", at_least=4_000),),
    ),
)
