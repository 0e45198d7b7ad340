"""The units of deploy/systemd under a real systemd: what they forbid, the server can do without."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.deploy.systemd_machine import SystemdMachine
from tests.services import wait_until

SYSTEMD = Path(__file__).parents[2] / "deploy" / "systemd"
SERVER, PIPELINE = "policy-server.service", "policy-pipeline.service"
# As the memory of one episode and of one batch would have it, so that learning is seen soon.
SMALL = """
[algorithm.training]
train_batch_size_per_learner = 500
minibatch_size = 100
"""


@pytest.fixture(scope="module")
def machine(missing_service: Callable[[str], NoReturn]) -> Iterator[SystemdMachine]:
    with SystemdMachine(missing_service) as booted:
        for name in ("server", "pipeline"):
            added = SMALL if name == "server" else ""
            booted.write(f"/etc/policy-server/{name}.toml", (SYSTEMD / f"{name}.toml").read_text(encoding="utf-8") + added)
        booted.install(SYSTEMD / SERVER, "WatchdogSec=20\n")
        booted.install(SYSTEMD / PIPELINE)
        yield booted


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_server_and_pipeline_serve_learn_record_and_stop(machine: SystemdMachine) -> None:
    machine.run("systemctl", "start", SERVER)
    assert machine.property(SERVER, "ActiveState") == "active", "READY=1 was sent: the unit is of the type notify"
    machine.run("systemctl", "start", PIPELINE)
    wait_until(
        lambda: "iteration" in (said := machine.property(SERVER, "StatusText")) and not said.endswith("iteration 0"),
        "an iteration of learning, in the status that the daemon tells systemd",
        480.0,
    )
    pid, run_folder = machine.property(SERVER, "MainPID"), "/var/lib/policy-server/live"
    ctl = ["/opt/policy-server/bin/policy-server", "ctl", "status", "--run_folder", run_folder]
    assert "state" in machine.run("nsenter", "--target", pid, "--mount", *ctl), "as docs/guides/deploying.md says"
    state = machine.run("ls", "-A", "/var/lib/private/policy-server/live").split()
    assert {"server.log", "store.sqlite", "server.toml"} <= set(state)
    assert "store.sqlite" in machine.run("ls", "/var/lib/private/policy-pipeline").split()
    assert machine.run("stat", "-c", "%a %U", "/var/lib/private/policy-server") == "700 policy-server"
    machine.run("systemctl", "stop", PIPELINE, SERVER)
    assert machine.property(SERVER, "Result") == "success", machine.journal(SERVER)
    assert machine.property(PIPELINE, "Result") == "success", machine.journal(PIPELINE)
    assert machine.run("bash", "-c", "ls /var/lib/private/policy-server/live/checkpoints").split(), "a checkpoint is written"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_server_that_stands_still_is_replaced(machine: SystemdMachine) -> None:
    machine.run("systemctl", "start", SERVER)
    before = machine.property(SERVER, "MainPID")
    os.kill(machine.main_process(SERVER), signal.SIGSTOP)
    wait_until(lambda: int(machine.property(SERVER, "NRestarts")) >= 1, "systemd to start the server again", 240.0)
    wait_until(lambda: machine.property(SERVER, "ActiveState") == "active", "the next server to serve", 480.0)
    assert machine.property(SERVER, "MainPID") != before, "nothing but the watchdog looks at a process that is stopped"
    machine.run("systemctl", "stop", SERVER)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_cannot_mend_itself_is_not_tried_again(machine: SystemdMachine) -> None:
    machine.run("systemctl", "stop", SERVER)
    kept = machine.run("cat", "/etc/policy-server/server.toml")
    machine.write("/etc/policy-server/server.toml", 'run_foldr = "x"\n')
    machine.run("systemctl", "start", SERVER, check=False)
    assert machine.property(SERVER, "ExecMainStatus") == "2"
    assert machine.property(SERVER, "ActiveState") == "failed"
    assert "run_foldr" in machine.journal(SERVER)
    machine.write("/etc/policy-server/server.toml", kept)
