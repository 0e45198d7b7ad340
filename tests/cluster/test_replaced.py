"""Ray gives a silent node up and makes the actor's successor elsewhere; the old process comes back, and is sent away."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.cluster.cluster import ACTOR, GIVES_UP_SOON, SETTINGS, Cluster, ClusterDaemon, Player, status, until
from tests.cluster.hosts import Host
from tests.cluster.ledgers import LedgerPlayer
from tests.conftest import CARTPOLE

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(1200)]


def test_the_old_process_is_sent_away(three_hosts: Sequence[Host]) -> None:
    cluster = Cluster(three_hosts, actors_on_each=2, of_head=GIVES_UP_SOON)
    first, *others = three_hosts
    daemon = ClusterDaemon(cluster, SETTINGS + CARTPOLE)
    daemon.wait_for("ready after")
    where = {address.partition(":")[0]: address for address in daemon.addresses()}
    assert where.keys() == {host.address for host in others}
    stays, cut = others
    beside = LedgerPlayer(cut, where[cut.address], 8, 80.0, spread=False)
    player = Player(first, where[stays.address], 16, spread=False)
    until(lambda: player.newest()["version"] >= 1 and beside.newest()["version"] >= 1, 120.0, daemon)
    old = {actor["boot_id"] for actor in status(first)["actors"]}
    assert len(old) == 2

    cut.cut()
    until(lambda: beside.newest()["stale_now"], 20.0, daemon)
    until(lambda: len(stays.processes(ACTOR)) == 2, 60.0, daemon)
    until(lambda: status(first)["actors_silent"] == [] and len(status(first)["actors"]) == 2, 60.0, daemon)
    (successor,) = {actor["boot_id"] for actor in status(first)["actors"]} - old
    assert len(cut.processes(ACTOR)) == 1, "the old process serves on, for it knows nothing of that"
    version = player.newest()["version"]
    until(lambda: player.newest()["version"] >= version + 2, 60.0, daemon)

    cut.heal()  # now Ray's own node may be faster to end the process than the link
    until(lambda: not cut.processes(ACTOR), 30.0, daemon)
    now = status(first)
    assert now["actors_silent"] == []
    assert successor in {actor["boot_id"] for actor in now["actors"]}
    assert len(now["actors"]) == 2
    version = player.newest()["version"]
    until(lambda: player.newest()["version"] >= version + 2, 60.0, daemon)
