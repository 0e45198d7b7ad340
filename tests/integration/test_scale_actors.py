"""`policy-server ctl scale` adds and removes serving actors under players with a ledger, and each acknowledged step is recorded once."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from policyserver.client import ClientConfig, PolicyClient
from tests.commands import ctl, ctl_answer
from tests.integration.daemon_process import DaemonProcess
from tests.integration.ledger_player import Player, finish, newest, recorded
from tests.ports import free_ports
from tests.services import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(1500)]

PPO = ("--algorithm.training", "{train_batch_size_per_learner = 400, minibatch_size = 200, num_epochs = 2}", "--listen.max_actors", "3")
APPO = (
    "--algorithm.name",
    "APPO",
    "--algorithm.env_runners",
    "{num_env_runners = 2, rollout_fragment_length = 50}",
    "--algorithm.training",
    "{train_batch_size_per_learner = 400}",
    "--algorithm.reporting",
    "{min_time_s_per_iteration = 0}",
)
MOST_UNTRAINED = 400 + 2 * 50
EXIT_REFUSED = 1

logger = logging.getLogger(__name__)


@dataclass
class Server:
    run_folder: Path
    address: str
    daemon: DaemonProcess

    def ctl(self, *arguments: str) -> Any:
        return ctl(self.run_folder, *arguments, "--json")

    def answer(self, *arguments: str) -> dict[str, Any]:
        return ctl_answer(self.run_folder, *arguments)

    def refusal(self, *arguments: str) -> str:
        done = self.ctl(*arguments)
        assert done.returncode == EXIT_REFUSED, done
        return str(done.stderr)

    def iterations(self) -> int:
        return int(self.answer("status")["iteration"])

    def learns_on(self, more: int) -> None:
        reached = self.iterations() + more
        wait_until(lambda: self.iterations() >= reached, f"{more} iterations more", 300.0)

    def actor_processes(self) -> int:
        """Return how many processes are serving actors, or become one."""
        children = psutil.Process(self.daemon.process.pid).children(recursive=True)
        return sum("ray::ExternalEnvRunner" in name for each in children for name in command_line(each))

    def number(self, index: int) -> str:
        """Return the address of an actor."""
        host, _, port = self.address.rpartition(":")
        return f"{host}:{int(port) + index - 1}"


def command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # it has ended
        return []


def versions_apart(client: PolicyClient) -> int:
    """Return by how much the policy versions of two actors differ, which are asked one after the other."""
    versions = [stats.weights_seq_no for stats in client.stats_by_endpoint().values()]
    assert len(versions) == 2
    return max(versions) - min(versions)


@contextmanager
def serving(tmp_path: Path, *options: str) -> Iterator[Server]:
    address = f"127.0.0.1:{free_ports(4)[0]}"
    with DaemonProcess(tmp_path / "run", address, *options) as daemon:
        daemon.wait_ready()
        yield Server(tmp_path / "run", address, daemon)


def ends_with_a_true_record(server: Server, ledger: dict[str, tuple[int, float]]) -> dict[str, Any]:
    """End the server and compare; returns the newest training iteration."""
    wait_until(lambda: set(ledger) <= {row["episode"] for row in newest(server.run_folder, "episode")}, "the last report", 90.0)
    assert server.daemon.terminate() == 0, server.daemon.text()
    episodes, trained = recorded(server.run_folder)
    acknowledged = sum(steps for steps, _ in ledger.values())
    logger.info("%d episodes, %d steps acknowledged, %d trained on", len(ledger), acknowledged, trained["steps_total"])
    assert len(ledger) > 50
    assert episodes == ledger
    return trained


def test_growing_and_shrinking_lose_no_step_and_clients_use_the_new_actor_by_themselves(tmp_path: Path) -> None:
    with serving(tmp_path, *PPO) as server, ExitStack() as stack:
        config = ClientConfig(action_timeout_s=200.0)
        clients = [stack.enter_context(PolicyClient(server.address, config=config)) for _ in range(4)]
        players = [Player(client, number) for number, client in enumerate(clients * 2)]
        server.learns_on(2)
        checkpoint = server.answer("save")["checkpoint"]["number"]
        server.answer("load", str(checkpoint), "--name", "old")

        grown = server.answer("scale", "2")
        assert (grown["before"], grown["actors"], grown["removed"]) == (1, 2, [])
        assert [(each["number"], each["address"]) for each in grown["added"]] == [(2, server.number(2))]
        wait_until(lambda: all(len(client.stats_by_endpoint()) == 2 for client in clients), "clients to use it", 90.0)
        server.learns_on(1)
        before = clients[0].stats_by_endpoint()
        server.learns_on(5)
        after = clients[0].stats_by_endpoint()
        played = {at: after[at].actions - before[at].actions for at in after}
        assert min(played.values()) > 0.25 * sum(played.values()), played
        wait_until(lambda: versions_apart(clients[0]) <= 1, "both to serve the same, or one what comes to both", 90.0)
        assert min(stats.steps_handed_off for stats in after.values()) > 0
        assert len(clients[0].server_info().endpoint_loads) == 2
        status = server.answer("status")
        assert (status["actors_expected"], len(status["actors"])) == (2, 2)
        assert [(each["number"], each["addresses"]) for each in status["serving_actors"]] == [
            (1, [server.address]),
            (2, [server.number(2)]),
        ]
        named = [Player(client, 100 + number, "old") for number, client in enumerate(clients[:2] * 2)]
        wait_until(lambda: all(player.ledger for player in named), "episodes of a loaded policy, also where it came later", 90.0)
        assert all(any(policy.policy == "old" for policy in each.policies) for each in clients[0].stats_by_endpoint().values())

        again = server.answer("scale", "2")
        assert (again["before"], again["actors"], again["added"], again["removed"]) == (2, 2, [], [])

        process = server.daemon.actor(2)
        shrunk = server.answer("scale", "1", "--drain_timeout_s", "60")
        assert (shrunk["before"], shrunk["actors"]) == (2, 1)
        assert [(each["number"], each["episodes_cut"]) for each in shrunk["removed"]] == [(2, 0)]
        process.wait(60)
        wait_until(lambda: all(len(client.server_info().endpoints) == 1 for client in clients), "one address", 90.0)
        assert [each["number"] for each in server.answer("status")["serving_actors"]] == [1]
        assert server.answer("status")["actors_expected"] == 1
        server.learns_on(3)
        ledger = finish([*players, *named])
        assert [client.counters().episodes_lost for client in clients] == [0] * 4
        trained = ends_with_a_true_record(server, ledger)
        assert trained["steps"] == pytest.approx(400, abs=60), "one actor makes the whole batch again"
        assert "ScaleActors by local: actors=2 drain_timeout_s=60.0" in server.daemon.text()
        calls = [(row["call"], row["who"], row["request"]) for row in newest(server.run_folder, "control")]
        assert ("ScaleActors", "local", "actors=1 drain_timeout_s=60.0") in calls


def test_a_batch_is_as_large_with_two_actors_as_with_one_and_the_ports_are_given_back(tmp_path: Path) -> None:
    with serving(tmp_path, *PPO) as server, PolicyClient(server.address, config=ClientConfig(action_timeout_s=200.0)) as client:
        players = [Player(client, number) for number in range(6)]
        server.learns_on(2)
        checkpoint = server.answer("save")["checkpoint"]["number"]
        version = server.answer("rollback", str(checkpoint))["weights_seq_no"]
        server.answer("scale", "3")
        wait_until(lambda: len(client.stats_by_endpoint()) == 3, "three actors", 90.0)
        assert min(stats.weights_seq_no for stats in client.stats_by_endpoint().values()) >= version, (
            "what was rolled back is served nowhere"
        )
        server.learns_on(4)
        training = client.stats().training
        assert training is not None
        assert training.steps == pytest.approx(400, abs=100)
        server.answer("scale", "1")
        server.learns_on(2)
        for index in (2, 3):
            host, _, port = server.number(index).rpartition(":")
            with socket.create_server((host, int(port))):
                pass
        server.answer("scale", "2")
        server.learns_on(2)
        ledger = finish(players)
        assert client.counters().episodes_lost == 0
        ends_with_a_true_record(server, ledger)


def test_what_can_t_be_done_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, *PPO) as server, PolicyClient(server.address) as client:
        client.connect()
        assert "actors: expected 1 to 3, received 0" in server.refusal("scale", "0")
        assert "actors: expected 1 to 3, received 4" in server.refusal("scale", "4")
        assert "drain_timeout_s: expected 0 to 86400, received -1" in server.refusal("scale", "2", "--drain_timeout_s", "-1")
        host, _, port = server.number(2).rpartition(":")
        with socket.create_server((host, int(port))):
            text = server.refusal("scale", "2")
        assert f"actor 2: listen.address: {server.number(2)} is in use by another process" in text
        assert "There are 1 serving actors now, 1 before, 2 wanted" in text

        command = [
            str(Path(sys.executable).with_name("policy-server")),
            "ctl",
            "scale",
            "2",
            "--run_folder",
            str(server.run_folder),
            "--json",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as growing:
            wait_until(lambda: server.actor_processes() == 2, "it grows", 90.0)
            assert "expected no other restart or scale under way" in server.refusal("scale", "1")
            assert "expected no other restart or scale under way" in server.refusal("restart-actors")
            assert json.loads(growing.communicate(timeout=300)[0])["actors"] == 2

        server.answer("pause")
        assert "received one that is paused" in server.refusal("scale", "1")
        assert server.answer("scale", "3")["actors"] == 3, "a new actor needs no learner"
        server.answer("resume")
        assert server.answer("scale", "1")["actors"] == 1
        assert server.daemon.terminate() == 0, server.daemon.text()
    with DaemonProcess(server.run_folder, server.address, *PPO) as daemon:
        daemon.wait_ready()
        assert server.answer("status")["actors_expected"] == 1, "what is configured"
        assert daemon.terminate() == 0, daemon.text()


def test_an_actor_of_an_algorithm_that_does_not_wait_goes_without_a_step_lost(tmp_path: Path) -> None:
    with serving(tmp_path, *APPO) as server, PolicyClient(server.address, config=ClientConfig(action_timeout_s=200.0)) as client:
        players = [Player(client, number) for number in range(6)]
        server.learns_on(2)
        assert [each["episodes_cut"] for each in server.answer("scale", "1")["removed"]] == [0]
        server.learns_on(2)
        assert server.answer("scale", "2")["actors"] == 2
        wait_until(lambda: len(client.stats_by_endpoint()) == 2, "two actors", 90.0)
        server.learns_on(2)
        stats = client.stats_by_endpoint()
        assert stats[server.number(2)].weights_seq_no > 1
        assert [each["episodes_cut"] for each in server.answer("restart-actors")["actors"]] == [0, 0]
        server.learns_on(2)
        ledger = finish(players)
        assert client.counters().episodes_lost == 0
        acknowledged = sum(steps for steps, _ in ledger.values())
        wait_until(lambda: acknowledged - server.answer("status")["steps_total"] < MOST_UNTRAINED, "the learner's own queue", 200.0)
        trained = ends_with_a_true_record(server, ledger)
        assert 0 <= acknowledged - trained["steps_total"] < MOST_UNTRAINED, "the batch and the fragments that were begun"
