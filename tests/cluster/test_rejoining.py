"""A node rejoins by `ray start`, after Ray gave it up and after it was switched off: an actor is placed on it and used by clients."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.cluster.cluster import ACTOR, GIVES_UP_SOON, SETTINGS, Cluster, ClusterDaemon, Player, status, until
from tests.cluster.hosts import Host
from tests.conftest import CARTPOLE

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(1200)]

GIVEN_UP_S = 60.0
BACK_S = 90.0


def test_a_node_rejoins_by_ray_start(three_hosts: Sequence[Host]) -> None:
    cluster = Cluster(three_hosts, of_head=GIVES_UP_SOON)
    first, stays, leaves = three_hosts
    daemon = ClusterDaemon(cluster, SETTINGS + CARTPOLE)
    daemon.wait_for("ready after")
    where = dict(zip((address.partition(":")[0] for address in daemon.addresses()), daemon.addresses(), strict=True))
    player = Player(first, where[stays.address], 24)
    until(lambda: player.newest()["version"] >= 2 and len(player.newest()["runners"]) == 2, 120.0, daemon)

    def rejoins(episodes: int) -> None:
        """Have the node join, and look who is served there, by a client that knows of it alone and by one that knew of it before."""
        assert not leaves.processes("raylet")
        version = player.newest()["version"]
        cluster.join(leaves)
        until(lambda: leaves.processes(ACTOR), BACK_S, daemon)
        until(lambda: sum(actor["actions"] > 0 for actor in status(first)["actors"]) == 2, BACK_S, daemon)
        there = Player(first, where[leaves.address], episodes, spread=False)
        until(lambda: there.newest()["steps"] > 500, BACK_S, daemon)
        until(lambda: len(player.newest()["runners"]) == 2 and player.newest()["version"] >= version + 2, BACK_S, daemon)
        assert len(stays.processes(ACTOR)) == len(leaves.processes(ACTOR)) == 1
        assert not first.processes(ACTOR)
        there.stop()

    leaves.cut()
    daemon.wait_for("is silent for")
    daemon.wait_for("marked dead", GIVEN_UP_S)
    leaves.heal()
    until(lambda: not leaves.processes("raylet"), GIVEN_UP_S, daemon)
    assert "is heard of again" not in daemon.text(), "clients would begin episodes in a process that Ray is about to end"
    rejoins(8)

    leaves.close()
    cluster.set_up_again(leaves)
    rejoins(9)
    assert player.newest()["errors"].keys() <= {"EpisodeLostError"}
