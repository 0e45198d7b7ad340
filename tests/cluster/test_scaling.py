"""`ctl scale` on a cluster: an actor comes on another node and clients use it, and without room none comes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.cluster.cluster import SETTINGS, Cluster, ClusterDaemon, Player, ctl, until
from tests.cluster.hosts import Host
from tests.conftest import CARTPOLE

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.long, pytest.mark.timeout(1200)]


def test_an_actor_comes_on_another_node_and_goes(three_hosts: Sequence[Host]) -> None:
    first, *others = three_hosts
    cluster = Cluster(three_hosts)
    settings = SETTINGS.replace("num_env_runners = 2", "num_env_runners = 1") + CARTPOLE
    daemon = ClusterDaemon(cluster, settings, "--ray.address", "auto")  # that of the Ray node on its own machine
    daemon.wait_for("ready after")
    (address,) = daemon.addresses()
    player = Player(first, address, 32)
    until(lambda: player.newest()["version"] >= 2, 120.0, daemon)
    assert player.newest()["runners"] == [address]

    (added,) = ctl(first, "scale", "2")["added"]
    assert {each.partition(":")[0] for each in (address, added["address"])} == {host.address for host in others}
    until(lambda: set(player.newest()["runners"]) == {address, added["address"]}, 60.0, daemon)
    with pytest.raises(Exception, match="expected room for 1 more serving actors"):
        ctl(first, "scale", "3")

    (removed,) = ctl(first, "scale", "1")["removed"]
    assert removed["number"] == 2
    version = player.newest()["version"]
    until(lambda: player.newest()["version"] > version + 1, 120.0, daemon)
    assert "left out until it is heard of" not in daemon.text(), "its end was planned"
    assert ctl(first, "scale", "2")["actors"] == 2
