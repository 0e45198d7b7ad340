"""`policy-server ctl restart-actors` replaces the serving actors one by one, and each step that was acknowledged is recorded once."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest

from policyserver.client import ClientConfig, PolicyClient
from tests.commands import run_here
from tests.integration.daemon_process import DaemonProcess
from tests.integration.ledger_player import Player, finish, recorded
from tests.ports import free_ports

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

OPTIONS = (
    "--algorithm.env_runners",
    "{num_env_runners = 2}",
    "--algorithm.training",
    "{train_batch_size_per_learner = 400, minibatch_size = 200}",
)
logger = logging.getLogger(__name__)


def test_no_step_is_lost_or_recorded_twice(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_ports(2)[0]}"
    run_folder = tmp_path / "run"
    with (
        DaemonProcess(run_folder, address, *OPTIONS) as daemon,
        PolicyClient(address, config=ClientConfig(action_timeout_s=200.0)) as client,
    ):
        daemon.wait_ready(200)
        before = {each: stats.boot_id for each, stats in client.stats_by_endpoint().items()}
        assert len(before) == 2
        players = [Player(client, number) for number in range(8)]
        time.sleep(3)
        done = run_here("policy-server", "ctl", "restart-actors", "--run_folder", str(run_folder), "--json")
        assert done.returncode == 0, done.stderr
        actors = json.loads(done.stdout)["actors"]
        assert [each["number"] for each in actors] == [1, 2]
        assert [each["episodes_cut"] for each in actors] == [0, 0]
        time.sleep(3)
        after = {each: stats.boot_id for each, stats in client.stats_by_endpoint().items()}
        assert set(after) == set(before)
        assert not set(after.values()) & set(before.values())
        assert [after[each] for each in sorted(after)] == [each["boot_id"] for each in actors]
        ledger = finish(players)
        assert client.counters().episodes_lost == 0
        time.sleep(2.5)  # the last report
        assert daemon.terminate(60) == 0, daemon.text()
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
