"""An address that is another one on each node becomes that node's; the usual ones stay as they are."""

from __future__ import annotations

import pytest

from policyserver.common.settings import SettingsError, load
from policyserver.server.config.node_address import advertised, interface_of, is_of_each_node, on_this_node, split_pattern
from policyserver.server.config.server_config import ServerConfig


@pytest.mark.parametrize(
    "address", ["127.0.0.1:9900", "localhost:9900", "[::1]:9900", "unix:/tmp/socket", "host.example.com:1", "0.0.0.0:9900"]
)
def test_a_usual_address_stays(address: str) -> None:
    assert not is_of_each_node(address)
    assert on_this_node(address, "10.1.2.3") == address


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("node:9900", "10.1.2.3:9900"),
        ("lo:9900", "127.0.0.1:9900"),
        ("127.0.0.0/8:9901", "127.0.0.1:9901"),
        ("127.0.0.1/32:0", "127.0.0.1:0"),
    ],
)
def test_an_address_of_each_node_becomes_this_ones(address: str, here: str) -> None:
    assert is_of_each_node(address)
    assert on_this_node(address, "10.1.2.3") == here


def test_the_node_of_an_ipv6_address_is_written_in_brackets() -> None:
    assert on_this_node("node:9900", "fd00::1") == "[fd00::1]:9900"
    assert advertised("{node_ip}:{port}", "[fd00::1]:9900", "fd00::1") == "[fd00::1]:9900"


@pytest.mark.parametrize(
    ("address", "says"), [("203.0.113.0/24:9900", "found none"), ("no-such-interface:9900", "an interface of this machine")]
)
def test_what_this_machine_lacks_is_refused_with_what_it_has(address: str, says: str) -> None:
    with pytest.raises(OSError, match=says):
        on_this_node(address, "10.1.2.3")


@pytest.mark.parametrize("address", ["10.0.0.1/8:9900", "10.0.0.0/40:9900", "10.0.0.0/8:99999", "10.0.0.0/8:http"])
def test_what_is_no_network_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="address: expected"):
        split_pattern(address)


def test_clients_are_told_the_address_of_the_template() -> None:
    assert advertised("", "10.1.2.3:9901", "10.1.2.3") == "10.1.2.3:9901"
    assert advertised("gate.example.com:{port}", "10.1.2.3:9901", "10.1.2.3") == "gate.example.com:9901"
    assert advertised("{node_ip}.nip.example:443", "0.0.0.0:9901", "10.1.2.3") == "10.1.2.3.nip.example:443"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ray.address": "head"}, "expected HOST:PORT of a Ray cluster's head"),
        ({"ray.address": "ray://head:10001"}, "expected HOST:PORT of a Ray cluster's head"),
        ({"ray.address": "head:99999"}, "expected HOST:PORT of a Ray cluster's head"),
        ({"ray.serving_resources": {"serving": 1}}, "expected ray.address with it"),
        ({"ray.serving_labels": {"zone": "a"}}, "expected ray.address with it"),
        ({"ray.address": "auto", "ray.learner_labels": {"zone": "in()"}}, r"learner_labels\.zone: expected 'VALUE'"),
        ({"ray.insecure": True}, "expected ray.address with it"),
        ({"ray.address": "auto", "ray.serving_resources": {"serving": 0}}, "expected a number above 0"),
        ({"ray.address": "auto", "ray.serving_resources": {"CPU": 1}}, "algorithm.env_runners"),
        ({"ray.address": "auto", "ray.runtime_env": {"container": {}}}, "expected one of env_vars"),
        ({"ray.address": "auto", "ray.runtime_env": {"env_vars": {"A": "x" * 70_000}}}, "at most 65536 bytes"),
        ({"ray.address": "auto", "learner.enabled": False}, "runs without Ray"),
        ({"listen.address": "10.0.0.0/8:9900"}, "without ray.address"),
        ({"listen.advertise": "gate:9900"}, "without ray.address"),
        ({"ray.address": "auto", "listen.advertise": "gate"}, "address: expected"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load(ServerConfig, None, settings)


def test_an_address_has_an_interface_of_this_machine_or_none() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.7") == "", "an address of examples"
