"""Actors are put on nodes by labels, spread or packed, in a namespace, with code that only the daemon's node has."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster.cluster import ACTOR, SETTINGS, Cluster, ClusterDaemon, Player, ctl, serve_command, until
from tests.cluster.guide import block_with, merged, option_of_ray_start
from tests.cluster.hosts import Host
from tests.cluster.test_joining import refused
from tests.cluster.test_learners import LEARNER
from tests.conftest import CARTPOLE

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(1200)]

OWN = "/tmp/trading"
"""In the place of a folder that all test hosts share."""


def actors_on(hosts: Sequence[Host]) -> list[int]:
    return [len(host.processes(ACTOR)) for host in hosts]


def end(daemon: ClusterDaemon) -> None:
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(120.0) == 0, daemon.text()


def play_with_two(daemon: ClusterDaemon, count: int) -> None:
    """Play so many episodes with both of its actors until it has learned."""
    daemon.wait_for("ready after")
    player = Player(daemon.host, daemon.addresses()[0], count)
    until(lambda: player.newest()["version"] > 0 and len(player.newest()["runners"]) == 2, 120.0, daemon)
    player.stop()


def test_by_labels_spread_and_packed_with_code_of_ones_own(four_hosts: Sequence[Host]) -> None:
    first, *others = four_hosts
    zone = option_of_ray_start("--labels=zone=a")
    roomy = [zone.replace("=a", "=b"), "--num-cpus=8", '--resources={"serving": 8}']
    options = dict(zip((host.name for host in others), ([zone], roomy, roomy), strict=True))
    cluster = Cluster(four_hosts, actors_on_each=2, options=options, variables={"PYTHONPATH": OWN})
    first.write(f"{OWN}/own_net/__init__.py", b"")
    first.write(f"{OWN}/own_net/nets.py", Path(__file__).with_name("own_net.py").read_bytes())

    nowhere = serve_command(first, SETTINGS + CARTPOLE, "--ray.serving_labels", '{zone = "c"}')
    text = refused(first.complete(*nowhere, env=cluster.environment), status=1)
    assert "ray.serving_labels: expected nodes with room for 2 serving actors" in text
    assert "on a node with the labels {'zone': 'c'}, found room for 0 on no node; start nodes with `--labels`" in text

    labelled = merged(SETTINGS + CARTPOLE + "[algorithm.learners]\nnum_learners = 1\n", block_with("serving_labels").text)
    own = block_with("runtime_env").text.replace("/opt/trading", OWN)
    daemon = ClusterDaemon(cluster, merged(labelled, own))
    daemon.wait_for("ready after")
    assert sorted(daemon.addresses()) == [f"{others[0].address}:9900", f"{others[0].address}:9901"], "though spread, by their label"
    assert actors_on(others) == [2, 0, 0]
    learners = [len(host.processes(LEARNER)) for host in four_hosts]
    assert learners in ([0, 0, 1, 0], [0, 0, 0, 1])
    for host in (others[0], four_hosts[learners.index(1)]):
        assert not host.path(OWN).exists()
        seen = [json.loads(file.read_text()) for file in host.path("/tmp").glob("own-net-*")]
        assert len(seen) >= len(host.processes(ACTOR)) + len(host.processes(LEARNER))
        assert {(each["size"], each["namespace"]) for each in seen} == {("32", "trading")}
        assert all(each["file"].startswith("/tmp/ray/") for each in seen), "where Ray has brought it"
    player = Player(first, daemon.addresses()[0], 24)
    until(lambda: player.newest()["version"] >= 2 and len(player.newest()["runners"]) == 2, 120.0, daemon)
    with pytest.raises(AssertionError, match=r"room for 1 more serving actors .* the labels \{'zone': 'a'\}, found room for 0 on 1 nodes"):
        ctl(first, "scale", "3")
    player.stop()
    end(daemon)

    nodes = ("--ray.serving_labels", '{zone = "in(b, c)"}')  # each has room for all of them
    packed = ClusterDaemon(cluster, SETTINGS + CARTPOLE, "--ray.placement", "pack", *nodes, run_folder="/tmp/packed")
    play_with_two(packed, 16)
    assert actors_on(others) in ([0, 2, 0], [0, 0, 2])
    assert sorted(address.partition(":")[2] for address in packed.addresses()) == ["9900", "9901"]
    end(packed)

    spread = ClusterDaemon(cluster, SETTINGS + CARTPOLE, *nodes, run_folder="/tmp/spread")
    play_with_two(spread, 17)
    assert actors_on(others) == [0, 1, 1]
    assert sorted(address.partition(":")[2] for address in spread.addresses()) == ["9900", "9900"]
    end(spread)
