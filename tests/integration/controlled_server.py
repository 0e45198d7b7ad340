"""A daemon that a test steers by `ctl`, those who play with it, and one who asks all the time what its policy would do."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from policyserver.client import PolicyClient
from policyserver.common.tensors import from_tensor, to_tensor
from policyserver.monitoring.store.reader import StoreReader
from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import policy_service_pb2_grpc as pb_grpc
from tests.commands import ctl, ctl_answer
from tests.integration.daemon_process import DaemonProcess
from tests.integration.held_learner import FILE, HELD
from tests.ports import DIRECT, free_address
from tests.services import wait_until

CONFIG = """
[spaces.observation]
type = "Box"
low = -inf
high = inf
shape = [4]
[spaces.action]
type = "Discrete"
n = 2
[algorithm]
name = "{name}"
{training}
[algorithm.reporting]
min_time_s_per_iteration = 0
min_sample_timesteps_per_iteration = 0
[algorithm.rl_module.model_config]
fcnet_hiddens = [16]
use_lstm = false
[checkpoints]
every_iterations = 0
keep = 2
[hand_off]
batches_ahead = 1.0
[rollback]
keep_replay = false
"""
TRAINING = {
    "PPO": "[algorithm.training]\ntrain_batch_size_per_learner = 512\nminibatch_size = 128\nnum_epochs = 20\nlr = 0.003",
    "APPO": "[algorithm.training]\ntrain_batch_size_per_learner = 128\nlr = 0.003\n[algorithm.env_runners]\nrollout_fragment_length = 32",
    "DQN": "[algorithm.training]\nnum_steps_sampled_before_learning_starts = 64\n[algorithm.env_runners]\nrollout_fragment_length = 32",
}
HELD_LEARNER = '[algorithm.learners]\nlearner_class = "python:tests.integration.held_learner.HeldLearner"\n'
_PACE_S = 0.01
"""Between two steps of a player: as fast as it can it would take the processors from what is tested."""
PROBE = np.array([0.3, -0.2, 0.1, 0.05], np.float32)


class Server:
    """A daemon, and `ctl` pointed at it."""

    def __init__(self, folder: Path, name: str = "PPO", more: str = "") -> None:
        self.run_folder = folder / "run"
        (folder / "server.toml").write_text(CONFIG.format(name=name, training=TRAINING[name]) + more)
        self.daemon = DaemonProcess(self.run_folder, free_address(), "--config", str(folder / "server.toml"))

    @property
    def address(self) -> str:
        return self.daemon.address

    def ctl(self, *arguments: str) -> Any:
        return ctl(self.run_folder, *arguments)

    def answer(self, *arguments: str) -> dict[str, Any]:
        return ctl_answer(self.run_folder, *arguments)

    def status(self) -> dict[str, Any]:
        return self.answer("status")

    def when(self, condition: Callable[[dict[str, Any]], bool], what: str, timeout_s: float = 200.0) -> dict[str, Any]:
        """Wait until the status meets a condition, and return it."""
        met: list[dict[str, Any]] = []

        def is_met() -> bool:
            status = self.status()
            if condition(status):
                met.append(status)
            return bool(met)

        wait_until(is_met, what, timeout_s)
        return met[0]

    def has_iterated(self, more: int) -> dict[str, Any]:
        """Wait until learning has gone on for some iterations."""
        least = self.status()["iteration"] + more
        return self.when(lambda status: status["iteration"] >= least, f"iteration {least}")

    @contextlib.contextmanager
    def held_update(self) -> Iterator[dict[str, Any]]:
        """Be in the middle of an update until the end of a `with` block, whose value is the status then; of a `controlled` server."""
        file = self.run_folder.with_name("hold")
        held = file.with_name(file.name + HELD)
        held.unlink(missing_ok=True)
        file.touch()
        try:
            wait_until(held.exists, "an update", 200.0)
            yield self.status()
        finally:
            file.unlink()

    def events(self) -> list[tuple[Any, ...]]:
        with contextlib.closing(StoreReader(self.run_folder / "store.sqlite")) as reader:
            return reader.select("SELECT call, who, request, refusal FROM control ORDER BY id", ())

    def manifest(self, number: int) -> dict[str, Any]:
        """Return what is written beside a checkpoint."""
        path = self.run_folder / "checkpoints" / f"checkpoint-{number:08d}" / "manifest.json"
        return json.loads(path.read_text())  # type: ignore[no-any-return]


class Players:
    """Threads that play until the end of a `with` block, each answer's policy version and the longest wait; an error fails the test."""

    def __init__(self, address: str, threads: int = 8) -> None:
        self._client = PolicyClient(address)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._play, args=(number,)) for number in range(threads)]
        self.errors: list[BaseException] = []
        self.versions: set[int] = set()
        self.steps = 0

    def __enter__(self) -> Players:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60.0)
        self._client.close()
        assert not self.errors, self.errors

    def _play(self, number: int) -> None:
        random = np.random.default_rng(number)
        try:
            while not self._stop.is_set():
                episode = self._client.start_episode()
                for _ in range(30):
                    self._client.get_action(episode, random.normal(size=4).astype(np.float32))
                    self._client.log_returns(episode, float(random.normal()))
                    self.versions.add(self._client.weights_seq_no)
                    self.steps += 1
                    if self._stop.wait(_PACE_S):
                        break
                self._client.end_episode(episode, np.zeros(4, np.float32))
        except Exception as error:
            self.errors.append(error)


class Asker:
    """Asks all the time, on a thread, what the policy would do, in episodes that are not trained on; until the end of a `with` block."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answers: list[tuple[float, int, float]] = []
        """When each came, the policy version, and the log-probability of action 0."""
        self.errors: list[BaseException] = []

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30.0)
        assert not self.errors, self.errors

    def _ask(self) -> None:
        try:
            with grpc.insecure_channel(self._address, DIRECT) as channel:
                stub = pb_grpc.PolicyServiceStub(channel)
                while not self._stop.wait(0.005):
                    self.answers.append(ask(stub))
        except Exception as error:
            self.errors.append(error)


def ask(stub: pb_grpc.PolicyServiceStub) -> tuple[float, int, float]:
    episode = stub.StartEpisode(pb.StartEpisodeRequest(training_disabled=True)).episode_id
    reply = stub.GetAction(pb.GetActionRequest(episode_id=episode, observation=[to_tensor(PROBE)], no_wait=True))
    stub.EndEpisode(pb.EndEpisodeRequest(episode_id=episode, observation=[to_tensor(PROBE)]))
    is_zero = int(from_tensor(reply.action[0], "action")) == 0
    log_prob = reply.action_log_prob if is_zero else float(np.log1p(-np.exp(reply.action_log_prob)))
    return time.monotonic(), int(reply.weights_seq_no), log_prob


def asked_once(address: str) -> tuple[int, float]:
    with grpc.insecure_channel(address, DIRECT) as channel:
        _, version, log_prob = ask(pb_grpc.PolicyServiceStub(channel))
    return version, log_prob


@contextlib.contextmanager
def controlled(folder: Path) -> Iterator[Server]:
    """Run a server until the end of a `with` block; it serves from the beginning of it, and its updates can be held."""
    root = Path(__file__).parents[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{root}:{root / 'proto'}")
        patch.setenv(FILE, str(folder / "hold"))
        server = Server(folder, more=HELD_LEARNER)
        with server.daemon:
            assert server.answer("wait-ready", "--timeout_s", "300")["state"] == "serving"
            yield server


def older_checkpoint(server: Server) -> tuple[int, float]:
    """Return the number of a pinned checkpoint, and the log-probability that its policy gives; learning has gone on since."""
    with Players(server.address):
        server.has_iterated(1)
        server.answer("pause")
        number = server.answer("save", "--pin")["checkpoint"]["number"]
        _, log_prob = asked_once(server.address)
        server.answer("resume")
        server.has_iterated(6)
    return number, log_prob
