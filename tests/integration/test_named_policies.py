"""Further policies of a server that learns: they outlive newer checkpoints and a killed actor, are not learned from, can be promoted."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.client import PolicyClient, PolicyServerError, PolicyUnknownError
from policyserver.monitoring.store.reader import StoreReader
from tests.commands import run_here
from tests.integration.controlled_server import Server
from tests.ports import free_address
from tests.services import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROBES = np.random.default_rng(3).normal(size=(16, 4)).astype(np.float32)


def played(client: PolicyClient, **wanted: Any) -> list[int]:
    """Play an episode of the same id and return its actions."""
    episode = client.start_episode(f"probe {wanted} {np.random.default_rng().integers(2**60)}", **wanted)
    actions = []
    for probe in PROBES:
        actions.append(int(client.get_action(episode, probe)))
        client.log_returns(episode, 1.0)
    client.end_episode(episode, PROBES[0])
    return actions


def learn(server: Server, client: PolicyClient) -> None:
    """Play until the learner has made an update more."""
    random, before = np.random.default_rng(0), server.answer("status")["iteration"]
    while server.answer("status")["iteration"] == before:
        ids = client.start_episodes(8)
        for _ in range(64):
            client.get_actions(ids, random.normal(size=(8, 4)).astype(np.float32))
            client.log_returns_batch(ids, random.normal(size=8))
        client.end_episodes(ids, np.zeros((8, 4), np.float32), truncated=True)


def test_a_loaded_policy_stays_while_the_server_learns_and_can_be_promoted(tmp_path: Path) -> None:
    server = Server(tmp_path)
    with server.daemon as daemon:
        daemon.wait_ready()
        with PolicyClient(daemon.address) as client:
            learn(server, client)
            first = server.answer("save")["checkpoint"]
            assert server.answer("load", str(first["number"]), "--name", "first")["policy"]["name"] == "first"
            expected = played(client, policy="live", explore=False)
            assert played(client, policy="first", explore=False) == expected
            assert client.weights_seq_no == first["weights_seq_no"]
            trained = server.answer("status")["steps_total"]
            for _ in range(4):  # keep = 2
                server.answer("save")
            learn(server, client)
            assert played(client, policy="first", explore=False) == expected
            numbers = [each["number"] for each in server.answer("checkpoints")["checkpoints"]]
            assert (first["number"] in numbers, len(numbers)) == (True, 3)
            stats = client.stats()
            assert stats.steps_untrained >= 3 * len(PROBES)
            assert server.answer("status")["steps_total"] - trained <= stats.steps_completed - stats.steps_untrained
            wait_until(lambda: {"PPO greedy", "first greedy"} <= recorded_policies(server).keys(), "what a killed actor would not tell")

        daemon.actor().kill()
        with PolicyClient(daemon.address) as client:

            def is_back() -> bool:
                with contextlib.suppress(PolicyServerError):
                    return played(client, policy="first", explore=False) == expected
                return False

            wait_until(is_back, "the restarted actor, with the policy", timeout_s=200.0)
            with pytest.raises(PolicyUnknownError, match="expected one of live, live@start, first"):
                played(client, policy="second")
            promoted = server.answer("promote", "first")
            assert promoted["weights_sha256"] == first["weights_sha256"]
            assert played(client, policy="live", explore=False) == expected
            learn(server, client)
            assert server.answer("drop", "first") == {"was_loaded": True, "loaded": []}
            with pytest.raises(PolicyUnknownError):
                played(client, policy="first")
        assert daemon.terminate() == 0
    with contextlib.closing(StoreReader(server.run_folder / "store.sqlite")) as reader:
        calls = [call for (call,) in reader.select("SELECT call FROM control WHERE refusal IS NULL ORDER BY id", ())]
        assert [call for call in calls if call in ("LoadPolicy", "Promote", "DropPolicy")] == ["LoadPolicy", "Promote", "DropPolicy"]
    policies = recorded_policies(server)
    assert policies["PPO greedy"] >= 2
    assert policies["first greedy"] >= 2, "those of the killed actor's last second are lost with it"


def recorded_policies(server: Server) -> dict[str, int]:
    """Return how many episodes of each policy are recorded."""
    with contextlib.closing(StoreReader(server.run_folder / "store.sqlite")) as reader:
        return dict(reader.select("SELECT policy, COUNT(*) FROM whole_episode GROUP BY policy", ()))


def test_a_checkpoint_of_another_run_is_loaded_by_its_folder_in_the_configuration_and_promoted(tmp_path: Path) -> None:
    other = Server(tmp_path)
    with other.daemon as daemon:
        daemon.wait_ready()
        with PolicyClient(daemon.address) as client:
            learn(other, client)
            foreign = other.answer("save")["checkpoint"]
            expected = played(client, policy="live", explore=False)
        assert daemon.terminate() == 0
    (tmp_path / "second").mkdir()
    address = free_address()
    operator = secured(tmp_path / "second", address)
    server = Server(tmp_path / "second", more=f'[policies]\nload = {{ other = "{foreign["path"]}" }}\n{operator}')
    with server.daemon as daemon:
        daemon.wait_ready()
        folder = tmp_path / "second"
        over_tcp = ("--address", address, "--tls_ca_file", str(folder / "admin.crt"), "--token_file", str(folder / "operator"))
        status = run_here("policy-server", "ctl", "status", "--json", *over_tcp)
        assert (status.returncode, str(tmp_path) in status.stdout, '"other"' in status.stdout) == (0, False, True), "it has no paths"
        refused = run_here("policy-server", "ctl", "load", foreign["path"], *over_tcp)
        assert (refused.returncode, "expected the number" in refused.stderr) == (2, True), "a checkpoint has a number, and no path"
        with PolicyClient(daemon.address) as client:
            assert played(client, policy="other", explore=False) == expected
            promoted = run_here("policy-server", "ctl", "promote", "other", "--json", *over_tcp)
            assert promoted.returncode == 0, promoted.stderr
            assert json.loads(promoted.stdout)["weights_sha256"] == foreign["weights_sha256"]
            assert played(client, policy="live", explore=False) == expected
            learn(server, client)
            assert server.answer("checkpoints")["checkpoints"][-1]["path"].startswith(str(server.run_folder))
        assert daemon.terminate() == 0


def secured(folder: Path, address: str) -> str:
    """Make a certificate, a key and a token for the admin service on the network, and return the table of the configuration."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=policy -keyout admin.key "
    command += "-out admin.crt -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    (folder / "operator").write_text("a-token-of-the-operator-with-32-bytes")
    for name in ("admin.key", "operator"):
        (folder / name).chmod(0o600)
    files = {"tls_certificate_file": "admin.crt", "tls_key_file": "admin.key", "token_file": "operator"}
    return f'[admin]\naddress = "{address}"\n' + "".join(f'{name} = "{folder / file}"\n' for name, file in files.items())
