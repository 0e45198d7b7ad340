"""Learners in processes of their own learn, and what they learn is served, saved, rolled back, guarded and restored as the daemon's own."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.controlled_server import Players, Server, asked_once
from tests.integration.daemon_process import DaemonProcess
from tests.integration.spoiled_learning import FILE
from tests.ports import free_address
from tests.services import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NICENESS = 5
LEARNERS = """
[algorithm.learners]
num_learners = {count}
"""
SPOILED = 'learner_class = "python:tests.integration.spoiled_learning.SpoiledLearner"\n'
"""Our fused learner, which a file can spoil."""
ENDED_S = 200.0


@pytest.fixture
def spoiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that says what is spoiled."""
    file = tmp_path / "what"
    file.write_text("", encoding="ascii")
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{root}:{root / 'proto'}")
    monkeypatch.setenv(FILE, str(file))
    return file


class LearnersServer(Server):
    """A daemon with learners in processes of their own; it can be started again."""

    def start_again(self) -> None:
        """Start another daemon in the run folder."""
        folder = self.run_folder.parent
        self.daemon = DaemonProcess(self.run_folder, free_address(), "--config", str(folder / "server.toml"))

    def is_serving(self) -> None:
        """Wait until it serves."""
        assert self.answer("wait-ready", "--timeout_s", "300")["state"] == "serving"

    def has_learned(self, more: int) -> dict[str, Any]:
        """Wait until the policy is newer by some versions."""
        least = self.status()["weights_seq_no"] + more
        return self.when(lambda status: status["weights_seq_no"] >= least, f"version {least}")

    def learners(self) -> list[psutil.Process]:
        """Return the learners' processes."""
        children = psutil.Process(self.daemon.process.pid).children(recursive=True)
        return [each for each in children if "ray::_WrappedExecutable" in "".join(each.cmdline())]  # RLlib's class around the learner's


class CarelessPlayers(Players):
    """Players whose server may end."""

    def __exit__(self, *reason: object) -> None:
        with contextlib.suppress(AssertionError):
            super().__exit__(*reason)


def is_over(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def over(processes: list[psutil.Process], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not all(map(is_over, processes)):
        assert time.monotonic() < deadline, "a learner outlived its daemon"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("name", "count"), [pytest.param("PPO", 1, marks=pytest.mark.thorough), ("PPO", 2), pytest.param("APPO", 1, marks=pytest.mark.thorough)]
)
def test_it_learns_and_is_saved_rolled_back_guarded_and_restored_after_a_loss(name: str, count: int, tmp_path: Path, spoiled: Path) -> None:
    server = LearnersServer(tmp_path, name, LEARNERS.format(count=count) + (SPOILED if name == "PPO" else ""))
    with server.daemon:
        server.is_serving()
        learners = server.learners()
        assert len(learners) == count, [each.cmdline() for each in psutil.Process(server.daemon.process.pid).children(recursive=True)]
        assert {each.nice() for each in learners} == {os.nice(0) + NICENESS}, "updates give way to actions"
        assert server.daemon.actor().nice() == os.nice(0)
        with Players(server.address) as players:
            wait_until(lambda: len(players.versions) >= 4, "what they learn to be served", 300.0)
            server.answer("pause")
            number = server.answer("save", "--pin")["checkpoint"]["number"]
            _, at_saving = asked_once(server.address)
            server.answer("resume")
            server.has_learned(5)
            answer, log_prob = rolled_back(server, number)
            if name == "PPO":  # IMPALA's and APPO's actors may be some updates behind what is saved
                assert log_prob == pytest.approx(at_saving, abs=1e-5)
            server.answer("resume")
            server.when(lambda status: status["rolling_back_to"] is None, "the learners to follow")
            assert server.has_learned(2)["weights_seq_no"] > answer["weights_seq_no"]
        if name == "PPO":
            guarded(server, spoiled)
        with Players(server.address):
            server.has_learned(2)
        answer, again = rolled_back(server, number)
        assert again == pytest.approx(log_prob, abs=1e-5)
        server.answer("resume")
        with Players(server.address):  # an actor of APPO takes no state from RLlib while it waits for steps
            server.when(lambda status: status["rolling_back_to"] is None, "the learners to follow")
        assert "Traceback" not in server.daemon.text()
        if count > 1:
            loses_a_learner(server, learners)
        else:
            server.daemon.kill()
        over(learners)
    server.start_again()
    with server.daemon:
        server.is_serving()
        version, restored = asked_once(server.address)
        assert version == answer["weights_seq_no"]
        assert restored == pytest.approx(log_prob, abs=1e-5)
        with Players(server.address):
            assert server.has_learned(2)["weights_seq_no"] > version
        assert server.daemon.terminate() == 0


def loses_a_learner(server: LearnersServer, learners: list[psutil.Process]) -> None:
    """Kill one learner of several: RLlib can't go on without it, so the daemon ends, for another one to go on from the checkpoint."""
    learners[-1].kill()
    with CarelessPlayers(server.address):
        assert server.daemon.process.wait(ENDED_S) == 1, server.daemon.text()
    assert "training iterations failed in a row" in server.daemon.text()


def rolled_back(server: LearnersServer, number: int) -> tuple[dict[str, Any], float]:
    """Roll back while learning is paused; returns the answer, and the log-probability that is served then."""
    server.answer("pause")
    answer = server.answer("rollback", str(number))
    version, log_prob = asked_once(server.address)
    assert version == answer["weights_seq_no"]
    return answer, log_prob


def guarded(server: LearnersServer, spoiled: Path) -> None:
    """Let the learners go wrong until the guard pauses them, and let them go on."""
    with Players(server.address):
        spoiled.write_text("lr", encoding="ascii")
        status = server.when(lambda status: status["paused_by_guard"], "a pause", 200.0)
        assert "lower the learning rate" in status["guard_finding"]
        spoiled.write_text("", encoding="ascii")
        server.answer("resume")
        fired = server.status()["guard_fired"]
        assert fired >= 3
        server.has_learned(2)
        assert server.status()["guard_fired"] == fired
