"""How soon a server without a learner is ready, on a machine with nothing else to do."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import pytest

from tests.integration.daemon_process import DaemonProcess
from tests.ports import free_address
from tests.server.alone.test_lone_server import trained_run
from tests.server.export_harness import saved

STARTS = 5
MOST_S = 5.0


@pytest.mark.figures
@pytest.mark.process
def test_a_server_without_a_learner_is_ready_within_five_seconds(tmp_path: Path) -> None:
    """From the command to the answer SERVING, with all that a start does by default: admin service, record, live page."""
    config = trained_run(tmp_path)
    saved(config)
    checkpoint = config.checkpoints_folder / "checkpoint-00000001"
    options = ["--config", str(config.run_folder / "server.toml"), "--learner.enabled", "false", "--checkpoint", str(checkpoint)]
    options += ["--recording.page", "127.0.0.1:0"]
    seconds = []
    for number in range(STARTS):
        with DaemonProcess(tmp_path / f"run-{number}", free_address(), *options) as process:
            seconds.append(process.wait_ready(60.0))
            assert process.terminate() == 0, process.text()
    median_s = statistics.median(seconds)
    every = ", ".join(f"{each:.2f}" for each in seconds)
    sys.stdout.write(f"ready after {median_s:.2f} s (median of {STARTS} starts: {every} s)\n")
    assert median_s <= MOST_S, seconds
