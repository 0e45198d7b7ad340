"""A batch is full once all serving actors together have it, however few episodes one of them has, also where a client waits for all."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from policyserver.client import PolicyClient
from tests.integration.daemon_process import DaemonProcess
from tests.integration.episodes_player import STEPS, Episodes
from tests.ports import free_ports

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

BATCH, SAMPLE_WAIT_S, BATCHES = 400, 200, 2
OPTIONS = (
    "--algorithm.env_runners",
    "{num_env_runners = 2}",
    "--algorithm.training",
    f"{{train_batch_size_per_learner = {BATCH}, minibatch_size = 200, num_epochs = 2}}",
    "--hand_off.sample_wait_s",
    str(SAMPLE_WAIT_S),
)


def test_clients_with_an_odd_number_of_episodes_wait_for_no_share(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_ports(2)[0]}"
    with DaemonProcess(tmp_path / "run", address, *OPTIONS) as daemon:
        daemon.wait_ready()
        for count in (1, 3, 7):
            with PolicyClient(address) as client:
                episodes = Episodes(client, count)

                def iteration(client: PolicyClient = client) -> int:
                    training = client.stats().training
                    return training.iteration if training is not None else 0

                reached, begun_s = iteration(), time.monotonic()
                while iteration() < reached + BATCHES:
                    assert time.monotonic() - begun_s < SAMPLE_WAIT_S, f"an actor's share was waited for with {count} episodes"
                    for _ in range(STEPS):
                        episodes.step()
                    episodes.end()
                training = client.stats().training
                assert training is not None
                assert BATCH <= training.steps <= BATCH + 4 * STEPS
        assert daemon.terminate() == 0, daemon.text()
