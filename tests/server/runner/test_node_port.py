"""A serving actor on a cluster takes the first free port of its node, so that a node's address is the same whichever actor is put there."""

from __future__ import annotations

import socket

import pytest

from policyserver.server.config.serving_config import ListenConfig
from policyserver.server.grpc_front.listen_address import AddressInUseError
from policyserver.server.runner.node_port import NodePort
from tests.ports import free_ports, is_handed_out

NODE_IP = "127.0.0.1"


@pytest.fixture
def port() -> int:
    return free_ports(3)[0]


def on_node(port: int, index: int, advertise: str = "") -> NodePort:
    return NodePort(ListenConfig(address=f"node:{port}", advertise=advertise, max_actors=2), index, instances=2, node_ip=NODE_IP)


def test_the_only_actor_of_a_node_has_the_configured_port(port: int) -> None:
    for index in (2, 1):
        taken = on_node(port, index)
        assert taken.address == f"{NODE_IP}:{port}"
        taken.close()
        taken.close()


def test_each_actor_of_a_node_has_another_port_until_it_ends(port: int) -> None:
    second, first = on_node(port, 2), on_node(port, 1)
    assert [second.address, first.address] == [f"{NODE_IP}:{port}", f"{NODE_IP}:{port + 1}"]
    assert not is_handed_out(port), "kept until it listens"
    with pytest.raises(AddressInUseError, match=f"{NODE_IP}:{port} is in use"):
        on_node(port, 1)
    second.is_listened_on()
    successor = on_node(port, 3)  # of more actors than at the start
    assert successor.address == f"{NODE_IP}:{port + 2}"
    second.close()
    assert on_node(port, 2).address == f"{NODE_IP}:{port}"
    for each in (first, successor):
        each.close()


def test_a_port_on_which_another_program_listens_is_passed_over(port: int) -> None:
    with socket.create_server((NODE_IP, port)):
        taken = on_node(port, 1)
        assert taken.address == f"{NODE_IP}:{port + 1}"
        taken.close()


@pytest.mark.parametrize("listen", [{"address": "127.0.0.1:{port}"}, {"address": "node:{port}", "advertise": "gate.example.com:{{port}}"}])
def test_where_ports_alone_tell_actors_apart_each_index_has_its_own(port: int, listen: dict[str, str]) -> None:
    config = ListenConfig(listen["address"].format(port=port), advertise=listen.get("advertise", "").format(port=port))
    for index in (1, 2):
        taken = NodePort(config, index, instances=2, node_ip=NODE_IP)
        assert taken.address == f"{NODE_IP}:{port + index - 1}"
        taken.close()
