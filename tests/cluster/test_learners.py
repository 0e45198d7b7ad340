"""Learners on nodes of their own: they learn, and their weights reach clients and checkpoints; a roll-back and the guard reach them."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import SETTINGS, Cluster, ClusterDaemon, Player, ctl, until
from tests.cluster.guide import block_with, merged
from tests.cluster.hosts import Host
from tests.conftest import CARTPOLE
from tests.integration.spoiled_learning import FILE

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.long, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
ONE_ACTOR = SETTINGS.replace("num_env_runners = 2", "num_env_runners = 1") + CARTPOLE
SPOILED = 'learner_class = "python:tests.integration.spoiled_learning.SpoiledLearner"'
SPOILING = "/tmp/spoiling"
ACTOR, LEARNER = "ray::ExternalEnvRunner", "ray::_WrappedExecutable"
"""What Ray calls their processes; the second is a class of RLlib's around the learner's."""


def settings(count: int, more: str = "", name: str = "") -> str:
    """Return those of the guide, with so many learners and further keys of theirs."""
    placed = merged(ONE_ACTOR + "[checkpoints]\nevery_iterations = 0\n", block_with("learner_resources").text)
    assert placed.count("num_learners = 1\n") == 1
    return (f'algorithm.name = "{name}"\n' if name else "") + placed.replace("num_learners = 1\n", f"num_learners = {count}\n{more}\n")


def learns_on(player: Player, versions: int, daemon: ClusterDaemon) -> None:
    """Wait until a client has been answered by newer policies."""
    version = player.newest()["version"]
    until(lambda: player.newest()["version"] >= version + versions, 120.0, daemon)


def learners_on(host: Host) -> list[Any]:
    return list(host.processes(LEARNER))


@pytest.mark.slow
def test_one_learner_on_a_node_of_its_own(three_hosts: Sequence[Host]) -> None:
    first, serving, learning = three_hosts
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", FILE: SPOILING}
    cluster = Cluster(three_hosts, learners=[learning], variables=path)
    for host in three_hosts:
        host.write(SPOILING, b"")
    daemon = ClusterDaemon(cluster, settings(1, SPOILED))
    daemon.wait_for("ready after")
    assert [len(learners_on(host)) for host in three_hosts] == [0, 0, 1]
    assert [len(host.processes(ACTOR)) for host in three_hosts] == [0, 1, 0]
    (address,) = daemon.addresses()
    player = Player(first, address, 24)
    learns_on(player, 3, daemon)

    saved = ctl(first, "save", "--pin")["checkpoint"]
    learns_on(player, 3, daemon)
    answer = ctl(first, "rollback", str(saved["number"]))
    assert answer["weights_seq_no"] > saved["weights_seq_no"]
    daemon.wait_for("the learner goes on from")
    learns_on(player, 2, daemon)

    learning.write(SPOILING, b"lr")
    daemon.wait_for("the guard has fired, 3 in a row")
    daemon.wait_for("learning is paused and serving goes on")
    learning.write(SPOILING, b"")
    ctl(first, "resume")
    learns_on(player, 2, daemon)

    ctl(first, "pause")
    newest = ctl(first, "save")["checkpoint"]
    assert "Traceback" not in daemon.text()
    daemon.process.send_signal(signal.SIGKILL)
    until(lambda: not learners_on(learning) and not serving.processes(ACTOR), 20.0, daemon)
    again = ClusterDaemon(cluster, settings(1, SPOILED))
    again.wait_for("ready after")
    assert f"serving on {address}, policy version {newest['weights_seq_no']}," in again.text()
    learns_on(player, 2, again)
    again.process.send_signal(signal.SIGTERM)
    assert again.process.wait(120.0) == 0, again.text()
    until(lambda: not learners_on(learning), 10.0, again)


@pytest.mark.slow
def test_two_learners_on_two_nodes(four_hosts: Sequence[Host]) -> None:
    first, _, *learning = four_hosts
    cluster = Cluster(four_hosts, learners=learning)
    daemon = ClusterDaemon(cluster, settings(2))
    daemon.wait_for("ready after")
    assert [len(learners_on(host)) for host in learning] == [1, 1]
    player = Player(first, daemon.addresses()[0], 24)
    learns_on(player, 4, daemon)
    ctl(first, "pause")
    saved = ctl(first, "save")["checkpoint"]
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(120.0) == 0, daemon.text()
    again = ClusterDaemon(cluster, settings(2))
    again.wait_for("ready after")
    assert f"policy version {saved['weights_seq_no']}," in again.text(), (
        "both learners have the checkpoint's weights, or it would not start"
    )
    learns_on(player, 2, again)
    assert "Traceback" not in daemon.text() + again.text()


@pytest.mark.slow
def test_weights_of_appo_reach_clients_from_a_learner_elsewhere(three_hosts: Sequence[Host]) -> None:
    first, _, learning = three_hosts
    cluster = Cluster(three_hosts, learners=[learning])
    of_appo = settings(1, name="APPO").replace("minibatch_size = 250\n", "")
    daemon = ClusterDaemon(cluster, of_appo)
    daemon.wait_for("ready after")
    servers = [len(host.processes("ray::EnvRunnerStateServer")) for host in three_hosts]
    assert servers == [1, 0, 0], "it is needed by all actors, so no serving node that can be cut off has it"
    player = Player(first, daemon.addresses()[0], 24)
    learns_on(player, 4, daemon)
    assert "Traceback" not in daemon.text()
