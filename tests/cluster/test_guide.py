"""The guide "On a cluster" is followed as it is written, with each machine's own address in the place of the one it names."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster.cluster import CERTIFICATE, KEY, TOKEN, ClusterDaemon, Player, until, write_secrets
from tests.cluster.hosts import Host
from tests.documents import blocks, commands

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.long, pytest.mark.timeout(600)]

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "cluster.md"
FOLDER = "/run/policy-server"


def test_the_guide_serves_on_two_nodes(three_hosts: Sequence[Host]) -> None:
    first, *others = three_hosts
    variables, head, node, settings, serve, *_ = blocks(GUIDE)
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    write_secrets(three_hosts, f"{FOLDER}/server.crt", f"{FOLDER}/server.key", f"{FOLDER}/token")
    for host in three_hosts:
        host.write(f"{FOLDER}/ray-token", b"5" * 64)
        for name, copy in (("server.crt", CERTIFICATE), ("server.key", KEY), ("token", TOKEN)):  # where the player looks
            host.write(copy, first.path(f"{FOLDER}/{name}").read_bytes())
    exports = commands(variables.text)
    first.run("bash", "-ec", "\n".join([*exports, *commands(head.text)]), env=path)
    for host in others:
        text = "\n".join([*exports, *commands(node.text)]).replace("--node-ip-address=10.77.0.2", f"--node-ip-address={host.address}")
        host.run("bash", "-ec", text, env=path)
    first.write("/tmp/server.toml", settings.text.encode())
    (line,) = commands(serve.text)
    daemon = ClusterDaemon.of_shell(first, "\n".join([*exports, "cd /tmp", f"exec {line}"]), path)
    daemon.wait_for("ready after")
    assert {address.partition(":")[0] for address in daemon.addresses()} == {host.address for host in others}
    assert "WARNING" not in daemon.text()
    player = Player(first, daemon.addresses()[0], 16)
    until(lambda: player.newest()["steps"] > 200, 60.0, daemon)
    assert player.newest()["runners"] == sorted(daemon.addresses())
    assert not player.newest()["errors"]
