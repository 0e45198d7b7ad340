"""The guide "On a cluster" is followed as it is written, with each machine's own address in the place of the one it names.

So is what it says for the case that the head is lost, with its machine; the disk, on which the run is, comes back with it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster.cluster import CERTIFICATE, KEY, TOKEN, ClusterDaemon, Player, until, write_secrets
from tests.cluster.guide import FOLDER, block_with
from tests.cluster.hosts import SHARED, Host
from tests.documents import commands

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.long, pytest.mark.timeout(1200)]

HEAD_BLOCK, NODE_BLOCK = "ray start --head", "ray start --address"
"""Texts of the blocks that start a head and a node: of each there is one for the first time, and one for when the head was lost."""


def test_the_guide_serves_on_two_nodes_again_after_the_head_was_lost_and_on_a_third(four_hosts: Sequence[Host]) -> None:
    first, *others, added = four_hosts
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    write_secrets(four_hosts, f"{FOLDER}/server.crt", f"{FOLDER}/server.key", f"{FOLDER}/token")
    exports = commands(block_with("RAY_AUTH_TOKEN_PATH").text)
    (serve,) = commands(block_with("policy-server serve").text)
    kept = {file: first.path(f"{FOLDER}/{file}").read_bytes() for file in ("server.crt", "server.key", "token")} | {"ray-token": b"5" * 64}

    def bring_files(host: Host) -> None:
        for file, content in kept.items():
            host.write(f"{FOLDER}/{file}", content)
        for file, copy in (("server.crt", CERTIFICATE), ("server.key", KEY), ("token", TOKEN)):  # where the player looks
            host.write(copy, kept[file])

    def start_nodes(*texts: str) -> None:
        """Start the head and the nodes by the blocks that have these texts."""
        first.run("bash", "-ec", "\n".join([*exports, *commands(block_with(HEAD_BLOCK, *texts).text)]), env=path)
        for host in others:
            text = "\n".join([*exports, *commands(block_with(NODE_BLOCK, *texts).text)])
            host.run("bash", "-ec", text.replace("--node-ip-address=10.77.0.2", f"--node-ip-address={host.address}"), env=path)

    def started_daemon() -> ClusterDaemon:
        daemon = ClusterDaemon.of_shell(first, "\n".join([*exports, f"cd {SHARED}", f"exec {serve}"]), path)
        daemon.wait_for("ready after")
        assert {address.partition(":")[0] for address in daemon.addresses()} == {host.address for host in others}
        assert not re.search("WARNING|ERROR", daemon.text()), daemon.text()
        return daemon

    for host in four_hosts:
        bring_files(host)
    start_nodes()
    first.write(f"{SHARED}/server.toml", block_with("[ray]").text.encode())  # on what stays when the machine is switched off
    daemon = started_daemon()
    addresses = daemon.addresses()
    player = Player(others[0], addresses[0], 16)
    until(lambda: player.newest()["version"] >= 2, 120.0, daemon)
    assert player.newest()["runners"] == sorted(addresses)
    assert not player.newest()["errors"]
    first.run("bash", "-ec", f"cd {SHARED}; policy-server ctl save --run_folder runs/cluster", env=path)
    version = player.newest()["version"]

    first.close()
    first.switch_on()
    bring_files(first)
    start_nodes("ray stop")
    daemon = started_daemon()
    assert f"restored {SHARED}/runs/cluster/checkpoints/" in daemon.text(), daemon.text()
    assert sorted(daemon.addresses()) == sorted(addresses)
    steps = player.newest()["steps"]
    until(lambda: player.newest()["steps"] > steps + 500 and player.newest()["version"] > version, 120.0, daemon)
    assert player.newest()["runners"] == sorted(addresses)

    node, scaling = (block_with(text) for text in ("--node-ip-address=10.77.0.4", "ctl scale"))
    added.run("bash", "-ec", "\n".join([*exports, *commands(node.text)]), env=path)
    first.run("bash", "-ec", "\n".join([f"cd {SHARED}", *commands(scaling.text)]), env=path)
    until(lambda: player.newest()["runners"] == sorted([*addresses, f"{added.address}:9900"]), 60.0, daemon)
