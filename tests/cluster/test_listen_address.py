"""Serving actors listen by network and by interface, and behind a gate clients are told the gate's address alone."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

import pytest

from tests.cluster.cluster import SETTINGS, Cluster, ClusterDaemon, Player, until
from tests.cluster.hosts import NETWORK, Host, HostProcess
from tests.conftest import CARTPOLE

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(1200)]

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2.0)"


def served_by(port: int, first: Host, others: Sequence[Host]) -> Host:
    """Return the host that listens on a port."""
    (host,) = (host for host in others if first.complete(sys.executable, "-c", CONNECT, host.address, str(port)).returncode == 0)
    return host


def forward(first: Host, port: int, to: Host) -> HostProcess:
    """Forward connections to a port of one host to that of another."""
    return first.start(
        "systemd-socket-activate", "-l", f"{first.address}:{port}", "/lib/systemd/systemd-socket-proxyd", f"{to.address}:{port}"
    )


def play_with_two(daemon: ClusterDaemon, host: Host, address: str, count: int) -> list[str]:
    """Play so many episodes on a host until the server has learned; returns the addresses of both actors, as the client knows them."""
    player = Player(host, address, count)
    until(lambda: player.newest()["version"] > 0 and len(player.newest()["runners"]) == 2, 120.0, daemon)
    runners = list(player.newest()["runners"])
    assert player.newest()["errors"] == {}
    player.stop()
    return runners


def end(daemon: ClusterDaemon) -> None:
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(120.0) == 0, daemon.text()


def test_by_network_and_behind_a_gate_by_interface(three_hosts: Sequence[Host]) -> None:
    first, *others = three_hosts
    cluster = Cluster(three_hosts)
    daemon = ClusterDaemon(cluster, SETTINGS.replace("node:", f"{NETWORK}.0/24:") + CARTPOLE)
    daemon.wait_for("ready after")
    at_nodes = [f"{host.address}:9900" for host in others]
    assert sorted(daemon.addresses()) == at_nodes
    assert play_with_two(daemon, first, at_nodes[1], 16) == at_nodes
    end(daemon)

    gate = f"{first.address}:{{port}}"
    settings = SETTINGS.replace('"node:9900"', f'"eth0:9900"\nadvertise = "{gate}"')
    daemon = ClusterDaemon(cluster, settings + CARTPOLE, run_folder="/tmp/gate")
    daemon.wait_for("ready after")
    at_gate = [f"{first.address}:9900", f"{first.address}:9901"]
    assert sorted(daemon.addresses()) == at_gate
    gates = [forward(first, port, served_by(port, first, others)) for port in (9900, 9901)]
    assert play_with_two(daemon, first, at_gate[0], 17) == at_gate
    end(daemon)
    for each in gates:
        each.send_signal(signal.SIGKILL)
        each.wait(20.0)
