"""A daemon on one host, its serving actors on two others: they serve with TLS and a token, learn, are counted, drain and end with it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import pytest

from tests.cluster.cluster import ACTOR, Cluster, ClusterDaemon, Player, status, until
from tests.cluster.cluster import SETTINGS as TWO_ACTORS
from tests.cluster.hosts import Host
from tests.conftest import CARTPOLE

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.long, pytest.mark.timeout(1200)]

SETTINGS = TWO_ACTORS + CARTPOLE


@pytest.fixture
def cluster(three_hosts: Sequence[Host]) -> Cluster:
    return Cluster(three_hosts)


def test_serve_learn_count_drain_and_end(cluster: Cluster) -> None:
    first, *others = cluster.hosts
    daemon = ClusterDaemon(cluster, SETTINGS)
    daemon.wait_for("ready after")
    for host in others:
        assert len(host.processes(ACTOR)) == 1, "spread over the nodes that serve"
    assert not first.processes(ACTOR)
    assert "was started without" not in daemon.text(), "ray start was given what it should"
    assert "actor restart will fail" not in daemon.text(), "Ray restarts an actor without an object of the daemon's"
    assert {address.partition(":")[0] for address in daemon.addresses()} == {host.address for host in others}
    player = Player(first, daemon.addresses()[1], 32)
    until(lambda: player.newest()["version"] >= 3, 120.0, daemon)
    assert {runner.partition(":")[0] for runner in player.newest()["runners"]} == {host.address for host in others}

    def counted() -> bool:
        actors = status(first)["actors"]
        return [actor["clients_connected"] for actor in actors] == [1, 1] and all(actor["actions"] > 500 for actor in actors)

    until(counted, 90.0, daemon)  # what comes over the link, once a second
    assert len(status(first)["instance_id"]) == 32, "which this start has made"
    told: list[dict[str, Any]] = []

    def all_act() -> bool:
        told[:] = status(first)["serving_actors"]
        return all(each["episodes_open"] and each["weights_seq_no"] and (each["actions_per_s"] or 0.0) > 0 for each in told)

    until(all_act, 90.0, daemon)  # not in a second in which all wait for the learner
    assert [(each["number"], each["state"], each["addresses"]) for each in told] == [
        (number, "serving", [address]) for number, address in enumerate(daemon.addresses(), 1)
    ]
    assert {(each["host"], each["node_address"]) for each in told} == {(host.name, host.address) for host in others}
    assert "ERROR" not in daemon.text()

    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(60.0) == 0, daemon.text()
    assert not any(host.processes(ACTOR) for host in others)
    assert cluster.hosts[1].processes("raylet"), "the cluster goes on"
