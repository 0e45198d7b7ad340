"""Learning of an algorithm that learns nothing, without Ray: what the main thread does, with a real folder of checkpoints."""

from __future__ import annotations

import math
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from policyserver.common.settings import load
from policyserver.monitoring.sink import MultiSink
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.checkpoints import CheckpointFolder
from policyserver.server.daemon.daemon_metrics import DaemonMetrics
from policyserver.server.daemon.drain_alarm import DrainAlarm
from policyserver.server.daemon.learning import Learning
from policyserver.server.daemon.safe_point import SafePoint
from policyserver.server.daemon.served_state import SERVED_FILE
from policyserver.server.processes.training_report import Progress

WEIGHTS = {"default_policy": {"weight": np.ones(2, np.float32)}}
STEPS = 10


class Group:
    """One learner or one env runner, as RLlib calls it."""

    is_local = True
    _worker_manager = SimpleNamespace(actor_ids=list)  # it has no remote actors

    def __init__(self, one: Any) -> None:
        self._learner = self.one = one

    def foreach_env_runner(self, call: Any, **_: Any) -> list[Any]:
        return [] if call == "sample" else [call(self.one)]

    foreach_env_runner_async_fetch_ready = foreach_env_runner

    def foreach_learner(self, call: Any, **more: Any) -> list[Any]:
        answer = call(self.one, **more)
        return [SimpleNamespace(ok=True, get=lambda: answer)]

    def __len__(self) -> int:
        return 0

    def get_state(self, **_: Any) -> dict[str, Any]:
        return {"learner": {"rl_module": WEIGHTS, "weights_seq_no": self.one._weights_seq_no}}

    def update(self) -> None:
        self.one._weights_seq_no += 1

    def num_remote_workers(self) -> int:
        return 0

    def num_healthy_remote_workers(self) -> int:
        return 1


class Algorithm:
    """What learning calls of RLlib's algorithm, with a learner that learns nothing and files that can't be read."""

    def __init__(self) -> None:
        self.learner = SimpleNamespace(_weights_seq_no=0, compute_loss_for_module=None, _optimizer_lr_schedules={})
        self.learner_group = Group(self.learner)
        self.env_runner_group = Group(SimpleNamespace(set_state=lambda state: None, report_training=lambda report: None))
        self.config = SimpleNamespace(num_env_runners=0)
        self.env_runner = SimpleNamespace(get_state=lambda **_: {}, set_state=lambda state: None)
        self.local_replay_buffer = None
        self.trained = 0
        self.after_train: Callable[[int], None] = lambda trained: None
        self.unreadable = 0
        """Times that a checkpoint can't be read from now on."""

    def train(self) -> dict[str, Any]:
        self.trained += 1
        self.after_train(self.trained)
        self.env_runner_group.foreach_env_runner("sample")
        self.learner_group.update()
        versions = {"default_policy": {"weights_seq_no": self.learner._weights_seq_no}}
        return {"env_runners": {"num_env_steps_sampled": STEPS}, "learners": versions}

    def restore_from_path(self, path: str) -> None:
        if self.unreadable > 0:
            self.unreadable -= 1
            raise OSError(5, "Input/output error")

    def save_to_path(self, path: str) -> None:
        """Write nothing beside what is served."""


class Run:
    """Learning of an algorithm that is rolled back to its first checkpoint in the third iteration."""

    def __init__(self, folder: Path, last: int = 5) -> None:
        config = load(
            ServerConfig,
            None,
            {
                "run_folder": folder,
                "spaces.observation": {"type": "Box", "low": -math.inf, "high": math.inf, "shape": [4]},
                "spaces.action": {"type": "Discrete", "n": 2},
                "guard.enabled": False,
                "learner.retry_backoff_s": 0.01,
                "checkpoints.every_iterations": 0,
            },
        )
        self.algorithm: Any = Algorithm()
        self.checkpoints = CheckpointFolder(folder / "checkpoints", keep=3, spaces=config.spaces)
        state = {"rl_module": WEIGHTS}
        self.checkpoints.save(lambda path: (path / SERVED_FILE).write_bytes(pickle.dumps(state)), Progress(1, STEPS, 1, 1))
        self.stopping = threading.Event()
        self.safe_point = SafePoint(lambda: None, self.stopping)
        self.link: Any = SimpleNamespace(
            offer=lambda state: None, keep=lambda *_: None, ask=lambda *_, **more: [], order=lambda *_, **more: None
        )
        metrics = DaemonMetrics(folder, None)
        self.alarm = DrainAlarm()
        parts = (self.checkpoints, self.link, self.safe_point, self.stopping, metrics)
        self.learning = Learning(config, self.algorithm, *parts, alarm=self.alarm)
        self.progress: list[Progress] = []
        self.failures: set[tuple[int, str]] = set()
        self.last = last
        self.algorithm.after_train = self.step

    def step(self, trained: int) -> None:
        self.progress.append(self.learning.progress)
        self.failures.add((self.learning.failures, self.learning.last_failure))
        if trained == 3:
            self.learning.roll_back(1, 0)
        if trained >= self.last:
            self.stopping.set()

    def train(self) -> None:
        """Train until the last iteration; a daemon that goes round without an end is stopped after a minute."""
        timer = threading.Timer(60.0, self.stopping.set)
        timer.start()
        try:
            self.learning.train_until_stopped(MultiSink(), {})
        finally:
            timer.cancel()
            timer.join()
