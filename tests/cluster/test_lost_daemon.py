"""A daemon is killed: its actors end at once, and its successor has them replaced, restored and used by the same clients within 20 s."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence

import pytest

from tests.cluster.cluster import ACTOR, RUN, SETTINGS, Cluster, ClusterDaemon, Player, until, waits_until_ended
from tests.cluster.hosts import Host
from tests.conftest import CARTPOLE

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.long, pytest.mark.timeout(600)]

ENDED_S = 3.0
REPLACED_S = 20.0
EVERY_UPDATE = "[checkpoints]\nevery_iterations = 1\n"


def test_its_successor_replaces_the_actors(three_hosts: Sequence[Host]) -> None:
    cluster = Cluster(three_hosts)
    first, *others = three_hosts
    daemon = ClusterDaemon(cluster, SETTINGS + CARTPOLE + EVERY_UPDATE)
    daemon.wait_for("ready after")
    addresses = daemon.addresses()
    player = Player(others[0], addresses[0], 24)
    until(lambda: player.newest()["version"] >= 3, 120.0, daemon)
    actors = [actor for host in others for actor in host.processes(ACTOR)]
    assert len(actors) == 2

    killed_s = time.monotonic()
    daemon.process.send_signal(signal.SIGKILL)
    ended_s = waits_until_ended(actors, ENDED_S)
    steps = player.newest()["steps"]
    successor = ClusterDaemon(cluster, SETTINGS + CARTPOLE + EVERY_UPDATE)
    successor.wait_for("ready after")
    ready_s = time.monotonic() - killed_s
    until(lambda: player.newest()["steps"] > steps + 50, REPLACED_S, successor)
    acts_s = time.monotonic() - killed_s
    print(f"after the kill: actors ended in {ended_s:.1f} s, the successor was ready in {ready_s:.1f} s, clients acted in {acts_s:.1f} s")
    assert acts_s <= REPLACED_S, successor.text()
    assert f"restored {RUN}/checkpoints/" in successor.text()
    assert sorted(successor.addresses()) == sorted(addresses)
    until(lambda: player.newest()["runners"] == sorted(addresses), 30.0, successor)
    version = player.newest()["version"]
    until(lambda: player.newest()["version"] > version, 60.0, successor)
    assert cluster.hosts[1].processes("raylet"), "the cluster goes on"
