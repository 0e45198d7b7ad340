"""A node of a Ray cluster on this machine is found by its process, as Ray finds it, and a machine without one is refused in seconds."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from policyserver.server.daemon import ray_local_node
from policyserver.server.daemon.daemon_errors import DaemonError
from policyserver.server.daemon.ray_local_node import is_node_here, refuse_without_node
from tests.ports import free_address
from tests.server.daemon.ray_head_harness import head

pytestmark = [pytest.mark.process, pytest.mark.long]

HERE, ELSEWHERE = "ab" * 28, "cd" * 28


def waits(seconds: float) -> bool:
    time.sleep(seconds)
    return False


@pytest.fixture
def raylet() -> Iterator[None]:
    """A process that is called as Ray's is."""
    command = ["raylet", "-ISc", "import sys; print(flush=True); sys.stdin.read()", f"--node_id={HERE}"]
    process = subprocess.Popen(command, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield
    process.communicate()


def test_a_node_is_the_clusters_by_its_id_whatever_its_address(raylet: None) -> None:
    with head(token="", nodes=[ELSEWHERE, HERE]) as address:
        assert is_node_here(address, ())
        refuse_without_node(address, (), waits)


def test_a_head_that_does_not_say_is_believed_to_have_it(raylet: None) -> None:
    assert is_node_here(free_address(), ())
    with head(token="right", nodes=[ELSEWHERE]) as address:
        assert is_node_here(address, ())


def test_a_node_of_another_cluster_is_told_apart(raylet: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_local_node, "_WAIT_FOR_START_S", 0.3)
    nodes = [f"{number:056x}" for number in range(1, 8)]
    with head(nodes=nodes) as address, pytest.raises(DaemonError) as caught:
        refuse_without_node(address, (), waits)
    text = str(caught.value)
    assert f"expected a node of the Ray cluster at {address} on this machine" in text
    assert "the Ray nodes that run here are not of that cluster" in text
    assert "its nodes are 10.77.0.1, 10.77.0.2, 10.77.0.3, 10.77.0.4, 10.77.0.5 and 2 more. Run `ray start --address=127.0.0.1:" in text


def test_a_process_that_is_to_stop_waits_for_no_node() -> None:
    with head(nodes=[ELSEWHERE]) as address:
        refuse_without_node(address, (), lambda seconds: True)
