"""With Ray's TLS the daemon sends certificate, key and token to its actors, and no node but its own has the files."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.cluster.cluster import CERTIFICATE, HEAD, KEY, SETTINGS, TOKEN, Cluster, ClusterDaemon, Player, until, write_secrets
from tests.cluster.guide import block_with, merged
from tests.cluster.hosts import Host
from tests.conftest import CARTPOLE

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.long, pytest.mark.timeout(1200)]

RAY = "/tmp/ray-tls"


def test_secrets_lie_on_the_daemons_node_alone(three_hosts: Sequence[Host]) -> None:
    first, *others = three_hosts
    write_secrets(three_hosts, f"{RAY}/certificate", f"{RAY}/key", f"{RAY}/unused")
    tls = {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": f"{RAY}/certificate",
        "RAY_TLS_SERVER_KEY": f"{RAY}/key",
        "RAY_TLS_CA_CERT": f"{RAY}/certificate",
    }
    cluster = Cluster(three_hosts, variables=tls)
    for host in others:
        for file in (CERTIFICATE, KEY, TOKEN):
            host.path(file).unlink()
    cluster.environment["RAY_ADDRESS"] = HEAD
    daemon = ClusterDaemon(cluster, merged(SETTINGS, block_with("send_secrets").text) + CARTPOLE, "--ray.address", "env")
    daemon.wait_for("ready after")
    assert {address.partition(":")[0] for address in daemon.addresses()} == {host.address for host in others}
    player = Player(first, daemon.addresses()[1], 16)
    until(lambda: player.newest()["version"] >= 1, 120.0, daemon)
    assert len(player.newest()["runners"]) == 2
    key = first.path(KEY).read_bytes().splitlines()[1]
    for host in others:
        assert not host.path(CERTIFICATE).exists()
        assert host.complete("grep", "-rqsF", key.decode(), "/tmp", "/run", "/var/tmp").returncode == 1, "it is written nowhere"
