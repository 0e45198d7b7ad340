"""A daemon that was cut off from its run folder, which another machine's has taken: it writes nothing there any more, and ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policyserver.client import PolicyClient
from policyserver.server.daemon.folder_owner import OWNER_FILE
from tests.integration.daemon_process import DaemonProcess
from tests.integration.episodes_player import Episodes
from tests.ports import free_address
from tests.services import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_it_writes_no_checkpoint_and_says_who_has_the_folder(tmp_path: Path) -> None:
    run_folder, address = tmp_path / "run", free_address()
    training = "{train_batch_size_per_learner = 200, minibatch_size = 100, num_epochs = 2}"
    options = ("--algorithm.training", training, "--checkpoints.every_iterations", "0")
    with DaemonProcess(run_folder, address, *options) as daemon:
        daemon.wait_ready()
        with PolicyClient(address) as client:
            episodes = Episodes(client, 8)

            def has_learned() -> bool:
                episodes.step(1.0)
                training = client.stats().training
                return training is not None and training.iteration >= 1

            wait_until(has_learned, "an iteration, which a stop would save", 200.0)
        owner = json.loads((run_folder / OWNER_FILE).read_text())
        assert owner["process"] == daemon.process.pid
        new = run_folder / "new"
        new.write_text(json.dumps(owner | {"host": "beta", "process": 4711, "token": "another"}))
        new.rename(run_folder / OWNER_FILE)
        assert daemon.process.wait(120) == 1, daemon.text()
        assert "taken over by process 4711 on beta" in daemon.text().splitlines()[-1]
    assert list((run_folder / "checkpoints").glob("checkpoint-*")) == []
    assert json.loads((run_folder / OWNER_FILE).read_text())["host"] == "beta", "the other one's name stays"
