"""`policy-server ctl restart-actors` replaces the serving actors one by one, and each step that was acknowledged is recorded once."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from policyserver.client import ClientConfig, PolicyClient
from tests.commands import ctl_answer
from tests.integration.daemon_process import DaemonProcess
from tests.integration.ledger_player import Player, finish, newest, recorded
from tests.ports import free_address, free_ports
from tests.services import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

OPTIONS = (
    "--algorithm.env_runners",
    "{num_env_runners = 2}",
    "--algorithm.training",
    "{train_batch_size_per_learner = 400, minibatch_size = 200, num_epochs = 2}",
)
OF_A_DEATH = ("A worker died", "taking actor", " is unavailable: ")
OF_A_RETURN = ("back into service", "were restarted: their open episodes")

logger = logging.getLogger(__name__)


class StatesSeen:
    """What `ctl status` says of the actors until the end of a `with` block."""

    def __init__(self, run_folder: Path) -> None:
        self.states: set[tuple[int, str]] = set()
        self._run_folder, self._over = run_folder, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.2):
            answer = subprocess.run(
                [sys.executable, "-m", "policyserver.server", "ctl", "status", "--json", "--run_folder", str(self._run_folder)],
                capture_output=True,
                check=True,
            )
            self.states |= {(each["number"], each["state"]) for each in json.loads(answer.stdout)["serving_actors"]}


def test_no_step_is_lost_or_recorded_twice(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_ports(2)[0]}"
    run_folder = tmp_path / "run"
    with (
        DaemonProcess(run_folder, address, *OPTIONS) as daemon,
        PolicyClient(address, config=ClientConfig(action_timeout_s=200.0)) as client,
    ):
        daemon.wait_ready()
        wait_until(lambda: len(client.stats_by_endpoint()) == 2, "both actors", 90.0)
        before = {each: stats.boot_id for each, stats in client.stats_by_endpoint().items()}
        players = [Player(client, number) for number in range(8)]
        time.sleep(3)
        with StatesSeen(run_folder) as seen:
            actors = ctl_answer(run_folder, "restart-actors")["actors"]
        assert {(1, "leaving"), (2, "leaving")} <= seen.states, seen.states
        assert {state for _, state in seen.states} <= {"serving", "leaving", "away"}
        assert [each["number"] for each in actors] == [1, 2]
        assert [each["episodes_cut"] for each in actors] == [0, 0]
        time.sleep(3)
        wait_until(lambda: set(client.stats_by_endpoint()) == set(before), "the client's return to both actors", 120.0)
        after = {each: stats.boot_id for each, stats in client.stats_by_endpoint().items()}
        assert not set(after.values()) & set(before.values())
        assert [after[each] for each in sorted(after)] == [each["boot_id"] for each in actors]
        ledger = finish(players)
        assert client.counters().episodes_lost == 0
        wait_until(lambda: set(ledger) <= {row["episode"] for row in newest(run_folder, "episode")}, "the last report", 90.0)
        told = [line for line in daemon.text().splitlines() if any(word in line for word in (*OF_A_DEATH, *OF_A_RETURN))]
        assert told == [], "expected nothing of deaths that were planned"
        daemon.actor(2).kill()
        wait_until(lambda: all(word in daemon.text() for word in OF_A_DEATH), "what is said of a death that was not", 120.0)
        assert daemon.terminate() == 0, daemon.text()
    written, trained = recorded(run_folder)
    acknowledged = sum(steps for steps, _ in ledger.values())
    longest_s = max(player.longest_s for player in players)
    logger.info(
        "%d episodes, %d steps acknowledged, %d trained on, longest step %.2f s",
        len(ledger),
        acknowledged,
        trained["steps_total"],
        longest_s,
    )
    assert len(ledger) > 50
    assert written == ledger


def test_a_process_that_hangs_at_its_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{root}:{root / 'proto'}")
    config = tmp_path / "server.toml"
    config.write_text('[algorithm.callbacks]\ncallbacks_class = "python:tests.integration.hanging_end.HangingEnd"\n', encoding="utf-8")
    run_folder = tmp_path / "run"
    with DaemonProcess(run_folder, address := free_address(), "--config", str(config)) as daemon:
        daemon.wait_ready()
        hanging = daemon.actor()
        began = time.monotonic()
        ctl_answer(run_folder, "restart-actors", "--drain_timeout_s", "1")
        seconds = time.monotonic() - began
        assert not hanging.is_running()
        assert "actor 1: its process has not ended within 10 s, and is killed" in daemon.text()
        assert 10.0 < seconds < 200.0
        with PolicyClient(address, config=ClientConfig(action_timeout_s=200.0, connect_timeout_s=200.0)) as client:
            client.get_action(client.start_episode(), np.zeros(10, np.float32))
        logger.info("replaced after %.1f s", seconds)
