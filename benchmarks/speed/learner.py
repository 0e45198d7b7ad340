"""How many steps a second a learner consumes: updates of RLlib's learner on steps of the demo's problem, with nothing else in the process.

The steps are those that this server hands off, recorded once with the learner's own net; each update gets them as they come out of the
hand-off and begins with the same weights, so that all updates are alike. One thread computes, or a GPU and the thread that feeds it. What
is timed is RLlib's `Learner.update`, its connectors included, until the device has done all of it.

    python -m benchmarks.speed.learner demo         # then a line of seconds for each window
    python -m benchmarks.speed.learner demo gpu     # the same on the first GPU
"""

from __future__ import annotations

import json
import logging
import pickle
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from benchmarks.market.learners import RLLIB_SERVER
from benchmarks.speed.peers.table import CPU, GPU
from benchmarks.speed.recorded_steps import recorded_steps, spaces_of
from benchmarks.windows import Figures
from policyserver.common.settings import load
from policyserver.pipelines.demo.setup import DEMO_SERVER
from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.ray_start import RayProcess
from policyserver.server.runner.env_runner import ExternalEnvRunner


@dataclass(frozen=True)
class Learner:
    """What is measured."""

    server: Path
    """The server's settings."""
    net: str
    """The net in words."""
    of_the_demo: tuple[str, ...] = ()
    """Tables of `[algorithm]` that come from the demo's settings instead."""
    minibatch_steps: int | None = None
    """Steps of a minibatch instead of the settings'."""


_OURS, _RLLIBS = "LSTM 64 behind 64-64", "LSTM 256 behind 256-256"
LEARNERS = {
    "demo": Learner(DEMO_SERVER, _OURS),
    "rllib_defaults": Learner(RLLIB_SERVER, _RLLIBS),
    "demo_net": Learner(RLLIB_SERVER, _OURS, ("rl_module",)),
    "demo_update": Learner(RLLIB_SERVER, _RLLIBS, ("training",)),
    "demo_whole_batch": Learner(DEMO_SERVER, _OURS, minibatch_steps=4_000),
}


def configuration(learner: Learner, device: str = CPU) -> tuple[ServerConfig, AlgorithmConfig]:
    """Return a learner's settings, as the server's configuration and RLlib's; on a GPU they are those that put it there for a user."""
    config, demo = load(ServerConfig, learner.server), load(ServerConfig, DEMO_SERVER)
    taken = {name: getattr(demo.algorithm, name) for name in learner.of_the_demo}
    if learner.minibatch_steps is not None:
        taken["training"] = {**config.algorithm.training, "minibatch_size": learner.minibatch_steps}
    if device == GPU:
        taken["learners"] = {**config.algorithm.learners, "num_gpus_per_learner": 1}
    config = replace(config, algorithm=replace(config.algorithm, **taken))
    return config, algorithm_config(config, ExternalEnvRunner)


class Updates:
    """A learner and its steps."""

    def __init__(self, learner: Learner, batch_steps: int | None = None, device: str = CPU) -> None:
        """Build the learner and record its steps.

        Args:
            learner: What is measured.
            batch_steps: Steps of an update instead of the settings' train batch.
            device: Where it computes: "cpu" or "gpu". For a GPU RLlib wants a Ray that runs.
        """
        config, self._algorithm = configuration(learner, device)
        self.learner = self._algorithm.build_learner(spaces=spaces_of(config))
        self._on_gpu = self.learner.device.type == "cuda"
        assert self._on_gpu == (device == GPU), f"expected the learner on the {device}, RLlib put it on {self.learner.device}"
        module = self._algorithm.get_rl_module_spec(spaces=spaces_of(config), inference_only=True).build()
        module.set_state(self.learner.module["default_policy"].get_state(inference_only=True))
        steps = recorded_steps(config, self._algorithm, module, batch_steps or self._algorithm.train_batch_size_per_learner)
        self.steps = pickle.dumps(steps)
        self.begins_with = pickle.dumps(self.learner.get_state())

    def update(self, **options: Any) -> tuple[int, float, float]:
        """Do one update from the beginning; return its steps, its seconds and those of the processor."""
        self.learner.set_state(pickle.loads(self.begins_with))
        episodes = pickle.loads(self.steps)
        self._wait_for_device()
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        self.learner.update(
            episodes=episodes,
            num_epochs=options.get("num_epochs", self._algorithm.num_epochs),
            minibatch_size=self._algorithm.minibatch_size,
            shuffle_batch_per_epoch=self._algorithm.shuffle_batch_per_epoch,
        )
        self._wait_for_device()
        return sum(map(len, episodes)), time.perf_counter() - began_s, time.process_time() - began_cpu_s

    def _wait_for_device(self) -> None:
        """Return when the GPU has done what it was given, which it does in its own time."""
        if self._on_gpu:
            torch.cuda.synchronize()

    def window(self, seconds: float) -> Figures:
        """Do updates for some time, at least one."""
        done = [self.update()]
        until = time.perf_counter() + seconds - done[0][1]
        while time.perf_counter() < until:
            done.append(self.update())
        steps, spent_s, cpu_s = (sum(column) for column in zip(*done, strict=True))
        update_ms = [1e3 * spent for _, spent, _ in done]
        return {
            "steps_per_s": steps / spent_s,
            "p50_ms": statistics.median(update_ms),
            "p99_ms": max(update_ms),
            "max_ms": max(update_ms),
            "cpu_us_per_step": 1e6 * cpu_s / steps,
            "updates": len(done),
        }


@contextmanager
def _device(name: str) -> Iterator[str]:
    """Make a device ready and return what it is called."""
    if name == CPU:
        yield "CPU, one thread"
        return
    ray_process = RayProcess()  # RLlib asks Ray which GPUs are its own, and would start one of all processes by itself
    try:
        ray_process.start(num_cpus=1)
        yield torch.cuda.get_device_name()
    finally:
        ray_process.stop()


def main(name: str, device: str = CPU) -> None:
    """Do updates for as many seconds as each line of standard input says."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)  # as in this server; with more they wait for each other whenever anything else runs
    learner = LEARNERS[name]
    with _device(device) as called:
        updates = Updates(learner, device=device)
        updates.update(num_epochs=1)  # the first of a process is slower
        _say({"ready": True})
        for line in sys.stdin:
            _say({**updates.window(float(line)), "net": learner.net, "device": called, "learner": "busy"})


def _say(found: dict[str, Any]) -> None:
    sys.stdout.write(f"BENCH {json.dumps(found)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
