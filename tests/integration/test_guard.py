"""No action comes from an update that went wrong: it is undone, the server says why and pauses learning, and its clients notice nothing."""

from __future__ import annotations

import collections
import contextlib
import math
import re
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.client import PolicyClient
from policyserver.monitoring.store.reader import StoreReader
from tests.commands import run_here
from tests.integration.controlled_server import CONFIG, Asker, Server
from tests.integration.daemon_process import DaemonProcess
from tests.integration.spoiled_learning import FILE
from tests.ports import free_address
from tests.services import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2500)]

TRAINING = """[algorithm.training]
train_batch_size_per_learner = 512
minibatch_size = 64
num_epochs = 10
clip_param = 1.0
use_kl_loss = false
lr = 0.003
gamma = 0.0
learner_connector = "python:tests.integration.spoiled_learning.connectors"
[algorithm.learners]
learner_class = "python:tests.integration.spoiled_learning.SpoiledLearner"
[guard]
on_return = true
[recording]
metrics = "{metrics}"
"""


class GuardedServer(Server):
    """A daemon whose learning can be spoiled."""

    def __init__(self, folder: Path) -> None:
        self.metrics = free_address()
        self.run_folder = folder / "run"
        training = TRAINING.format(metrics=self.metrics)
        (folder / "server.toml").write_text(CONFIG.format(name="PPO", training=training), encoding="utf-8")
        self.daemon = DaemonProcess(self.run_folder, free_address(), "--config", str(folder / "server.toml"))


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file that says what is spoiled."""
    file = tmp_path_factory.mktemp("spoiled") / "what"
    file.write_text("", encoding="ascii")
    root = Path(__file__).parents[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{root}:{root / 'proto'}")
        patch.setenv(FILE, str(file))
        yield file


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, spoiled: Path) -> Iterator[GuardedServer]:
    server = GuardedServer(tmp_path_factory.mktemp("guard"))
    with server.daemon:
        assert server.answer("wait-ready", "--timeout_s", "300")["state"] == "serving"
        yield server


def fired_by_reason(server: GuardedServer) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=20.0) as answer:
        lines = answer.read().decode().splitlines()
    counts = [line for line in lines if line.startswith("policy_server_guard_fired_total{")]
    return {line.split('"')[1]: float(line.split()[1]) for line in counts}


def test_bad_updates_are_not_served_and_three_in_a_row_pause_learning(server: GuardedServer, spoiled: Path) -> None:
    with Scorer(server.address) as scorer, Asker(server.address) as asker:
        server.has_iterated(2)
        assert server.status()["guard_fired"] == 0
        for what, text in (("rewards", "default_policy/rewards: "), ("obs", "default_policy/obs: "), ("lr", "lower the learning rate")):
            spoiled.write_text(what, encoding="ascii")
            status = server.when(lambda status: status["paused_by_guard"] and status["learning"] == "paused", f"a pause by {what}", 500.0)
            assert text in status["guard_finding"]
            spoiled.write_text("", encoding="ascii")
            scorer.scores(0.0)  # serving goes on
            assert server.answer("resume")["weights_seq_no"] >= 0
            assert not server.status()["paused_by_guard"]
            server.has_iterated(2)
        fired = server.status()["guard_fired"]
        assert fired >= 9
        counted = {reason: count for reason, count in fired_by_reason(server).items() if count}
        assert counted.keys() <= {"batch", "move", "loss", "kl"}
        assert sum(counted.values()) == fired
    served: dict[int, set[float]] = {}
    for _, version, log_prob in asker.answers:
        assert math.isfinite(log_prob)
        served.setdefault(version, set()).add(log_prob)
    assert all(max(answers) - min(answers) < 3e-5 for answers in served.values()), served  # batches of other sizes round otherwise
    wait_until(lambda: len(of_guard(server)) >= fired + 3, "the record of it")
    events = of_guard(server)
    undone = sorted(version for call, _, version in events if call == "UndoUpdate")
    assert len(undone) == fired
    for version in undone:
        if {version, version - 1} <= served.keys():
            assert max(served[version] | served[version - 1]) - min(served[version] | served[version - 1]) < 3e-5, (
                f"version {version} is the policy before it"
            )
    assert sum({version, version - 1} <= served.keys() for version in undone) >= 3
    assert len({round(min(answers), 3) for answers in served.values()}) >= 6, "it learned on"
    assert [call for call, _, _ in events].count("PauseLearning") == 3
    assert all("look at the connectors" in request for call, request, _ in events if call == "UndoUpdate" and "/rewards:" in request)
    kept = sorted((server.run_folder / "quarantine").iterdir())
    assert 9 <= len(kept) <= 10
    with np.load(kept[0], allow_pickle=False) as batch:
        assert np.isnan(batch["default_policy/rewards"]).sum() == 1
        assert "rewards" in str(batch["what"])
    server.answer("save")
    for path in (kept[0], kept[-1]):
        ended = run_here("policy-server", "replay-update", str(path), "--run-folder", str(server.run_folder))
        assert ended.returncode == 0, ended.stderr
        expected = "refused (batch): default_policy/rewards: 1 of" if path == kept[0] else "the guard lets this update through"
        assert expected in ended.stdout, "what went wrong was the batch, and then the learning rate"
    text = server.daemon.text()
    assert "the guard has fired" in text
    assert str(kept[-1]) in text


class Scorer:
    """Plays episodes of ten steps until the end of a `with` block: a point for each action that is 1 where the observation is positive."""

    def __init__(self, address: str, episodes: int = 16, seed: int = 0) -> None:
        self._client = PolicyClient(address)
        self._seed = seed
        self._episodes = episodes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play)
        self.errors: list[BaseException] = []
        self.returns: collections.deque[float] = collections.deque(maxlen=200)

    def __enter__(self) -> Scorer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60.0)
        self._client.close()
        assert not self.errors, self.errors

    @property
    def version(self) -> int:
        return self._client.weights_seq_no

    def is_at(self, least: float) -> bool:
        """Whether the newest episodes have a mean return."""
        newest = list(self.returns)
        return len(newest) == 200 and sum(newest) / 200 >= least

    def scores(self, least: float) -> None:
        """Wait until the newest episodes have a mean return."""
        self.returns.clear()
        wait_until(lambda: self.is_at(least), f"a mean return of {least}", 500.0)

    def _play(self) -> None:
        random = np.random.default_rng(self._seed)
        try:
            while not self._stop.is_set():
                ids, sums = self._client.start_episodes(self._episodes), np.zeros(self._episodes)
                for _ in range(10):
                    observations = random.normal(size=(self._episodes, 4)).astype(np.float32)
                    actions = np.asarray(self._client.get_actions(ids, observations))
                    rewards = (actions == (observations[:, 0] > 0)).astype(float)
                    self._client.log_returns_batch(ids, rewards)
                    sums += rewards
                self._client.end_episodes(ids, random.normal(size=(self._episodes, 4)).astype(np.float32))
                self.returns.extend(sums.tolist())
        except Exception as error:
            self.errors.append(error)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in (2, 3, 4))])
def test_a_policy_that_becomes_worse_is_rolled_back_within_ten_updates_and_learns_on(
    server: GuardedServer, spoiled: Path, seed: int
) -> None:
    with Scorer(server.address, seed=seed) as scorer:
        wait_until(lambda: scorer.is_at(7.5) and incumbent_mean(server) > 7.5, "an incumbent that has learned", 500.0)
        before, planted = server.status()["guard_fired"], scorer.version
        spoiled.write_text("advantages", encoding="ascii")
        status = server.when(lambda status: status["guard_fired"] > before, "a roll-back", 500.0)
        spoiled.write_text("", encoding="ascii")
        assert "rolled back to checkpoint" in status["guard_finding"]
        wait_until(lambda: len(roll_backs(server)) == seed + 1, "the record of it")
        request, version = roll_backs(server)[-1]
        assert re.search(r"(25|50) episodes have a mean return of", request), request
        sys.stdout.write(f"seed {seed}: rolled back {version - 1 - planted} updates after negated advantages\n")
        assert version - 1 - planted <= 10, "updates"
        scorer.scores(6.5)
        assert server.status()["lineage"] >= seed + 1
        assert fired_by_reason(server)["return"] == seed + 1


def roll_backs(server: GuardedServer) -> list[tuple[str, int]]:
    return [(request, version) for call, request, version in of_guard(server) if call == "RollBack"]


def incumbent_mean(server: GuardedServer) -> float:
    means = re.findall(r"is the incumbent of the guard on the return: a mean of (\S+)", server.daemon.text())
    return float(means[-1]) if means else 0.0


def of_guard(server: GuardedServer) -> list[tuple[Any, ...]]:
    with contextlib.closing(StoreReader(server.run_folder / "store.sqlite")) as reader:
        return list(reader.select("SELECT call, request, weights_seq_no FROM control WHERE who = 'guard' ORDER BY id", ()))
