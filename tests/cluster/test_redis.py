"""With Redis a head that was killed comes back by the guide's command: daemon, actors and clients go on, and an actor is replaced again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from tests.cluster.cluster import ACTOR, SETTINGS, Cluster, ClusterDaemon, Player, until, waits_until_ended
from tests.cluster.guide import FOLDER, block_with
from tests.cluster.hosts import Host
from tests.conftest import CARTPOLE
from tests.documents import commands

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(1200)]

REDIS_PORT = 6380
PAUSE_S = 6.0
"""Or twice what a client had waited for at the longest before, on a machine whose updates take that long."""


@pytest.fixture
def redis(missing_service: Callable[[str], NoReturn]) -> str:
    """Debian's program."""
    program = shutil.which("redis-server")
    if program is None:
        missing_service("redis-server is not installed; Debian's package of that name has it")
    return program


def test_a_cluster_outlives_its_head(redis: str, three_hosts: Sequence[Host]) -> None:
    first, learns, serves = three_hosts
    password = "5" * 32
    first.write(f"{FOLDER}/redis-password", password.encode())
    first.start(redis, "--port", str(REDIS_PORT), "--bind", first.address, "--requirepass", password, "--save", "", "--dir", "/tmp")
    cluster = GuidedCluster(three_hosts, serving=[serves])
    daemon = ClusterDaemon(cluster, SETTINGS.replace("num_env_runners = 2", "num_env_runners = 1") + CARTPOLE, host=learns)
    daemon.wait_for("ready after")
    (address,) = daemon.addresses()
    player = Player(first, address, 16)
    until(lambda: player.newest()["version"] >= 2, 120.0, daemon)

    usual_s = player.newest()["longest_s"]
    killed = [process for name in ("gcs_server", "raylet", "ray::", "dashboard") for process in first.processes(name)]
    for process in killed:
        with contextlib.suppress(psutil.NoSuchProcess):  # some end with another
            process.kill()
    waits_until_ended(killed, 60.0)
    version = player.newest()["version"]
    until(lambda: player.newest()["version"] >= version + 2, 120.0, daemon)
    assert player.newest()["longest_s"] <= max(PAUSE_S, 2.0 * usual_s), "serving and learning go on without a head"
    cluster.start_head()
    (actor,) = serves.processes(ACTOR)
    actor.send_signal(signal.SIGKILL)
    waits_until_ended([actor], 60.0)
    until(lambda: serves.processes(ACTOR), 120.0, daemon)
    version = player.newest()["version"]
    until(lambda: player.newest()["version"] >= version + 2, 120.0, daemon)
    assert player.newest()["runners"] == [address]
    assert player.newest()["errors"].keys() <= {"EpisodeLostError"}
    assert daemon.process.poll() is None


class GuidedCluster(Cluster):
    """Its head is started by the guide's block."""

    def start_head(self, *options: str) -> None:
        path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        command = "\n".join(commands(block_with("RAY_REDIS_ADDRESS").text))
        self.hosts[0].run("bash", "-ec", command, env={**path, **self.environment})
