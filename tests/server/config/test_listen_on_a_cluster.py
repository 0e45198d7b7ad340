"""On a cluster a server listens where clients on other machines find it, or is refused before Ray is asked for anything."""

from __future__ import annotations

from typing import Any

import pytest

from policyserver.common.settings import SettingsError, load
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.preflight import looks

SECRETS = {"listen.tls_certificate_file": "c", "listen.tls_key_file": "k", "listen.token_file": "t"}


def config(**settings: Any) -> ServerConfig:
    spaces = {
        "spaces.observation": {"type": "Box", "low": 0.0, "high": 1.0, "shape": [4]},
        "spaces.action": {"type": "Discrete", "n": 2},
    }
    return load(ServerConfig, None, spaces | SECRETS | {name.replace("__", "."): value for name, value in settings.items()})


@pytest.mark.parametrize("address", ["127.0.0.1:9900", "localhost:9900", "[::1]:9900"])
def test_loopback_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match=r"listen.address: expected an address of each node's own, such as node:9900"):
        config(ray__address="auto", listen__address=address)


@pytest.mark.parametrize("address", ["node:9900", "eth0:9900", "10.77.0.0/24:9900", "10.77.0.2:9900", "gate.example.com:9900"])
def test_others_are_looked_at_on_the_nodes(address: str) -> None:
    assert config(ray__address="auto", listen__address=address).listen.address == address


def test_what_clients_are_told_may_be_something_else() -> None:
    config(ray__address="auto", listen__address="127.0.0.1:9900", listen__advertise="{node_ip}:{port}")


@pytest.mark.parametrize(("advertise", "warns"), [("", True), ("gate.example.com:{port}", False)])
def test_where_clients_keep_the_host_by_which_they_came_it_is_said(advertise: str, warns: bool, caplog: pytest.LogCaptureFixture) -> None:
    look = looks(config(ray__address="auto", listen__address="0.0.0.0:9900", listen__advertise=advertise))["listen.advertise"]
    look()
    assert ("else set node:PORT, or listen.advertise" in caplog.text) == warns


def test_a_node_needs_a_cluster() -> None:
    with pytest.raises(SettingsError, match=r"listen.address: expected ray.address with 'node'"):
        config(listen__address="node:9900")
