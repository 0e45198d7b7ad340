"""A server without a learner serves a checkpoint as it is: one process, no Ray, the same wire, and nothing is recorded to learn from."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest

from policyserver.client import ClientConfig, PolicyClient
from policyserver.common.settings import dump_toml
from policyserver.monitoring.store.reader import StoreReader
from policyserver.server.alone.lone_server import LoneServer
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.control.admin_server import SOCKET
from policyserver.server.daemon.folder_lock import FolderInUseError
from policyserver.server.daemon.folder_owner import OWNER_FILE, Owner
from policyserver.v1 import admin_service_pb2 as pb
from policyserver.v1 import admin_service_pb2_grpc as pb_grpc
from tests.commands import ctl, ctl_answer, run_here
from tests.integration.daemon_process import DaemonProcess
from tests.ports import DIRECT, free_ports
from tests.server.export_harness import ServedEpisode, observations, run_config_of, saved
from tests.services import wait_until

GREEDY = {"explore": False}
READY_S = 200.0
"""On a machine with other work to do; alone it takes less than five seconds."""


def trained_run(tmp_path: Path) -> ServerConfig:
    """Make the folder of a run that has ended."""
    config = run_config_of(connectors__mean_std_filter=True, algorithm__env_runners=GREEDY)
    config = dataclasses.replace(config, run_folder=tmp_path / "trained")
    config.run_folder.mkdir()
    (config.run_folder / "server.toml").write_text(dump_toml(config), encoding="utf-8")
    return config


def ctl_steers_what_needs_no_learner(run_folder: Path, address: str, instance_id: str) -> None:
    status = ctl_answer(run_folder, "status")
    assert status["instance_id"] == instance_id, "that of each handshake"
    wait_until(lambda: ctl_answer(run_folder, "status")["serving_actors"][0]["state"] == "serving", "the first report")
    (alone,) = ctl_answer(run_folder, "status")["serving_actors"]
    assert (alone["number"], alone["addresses"], alone["host"], alone["weights_seq_no"]) == (0, [address], "", 70)
    assert (status["state"], status["learning"], status["checkpoint"], status["weights_seq_no"]) == ("serving", "absent", 1, 70)
    for action in (["pause"], ["rollback", "1"]):
        ended = ctl(run_folder, *action)
        assert ended.returncode == 1
        assert "received one with learner.enabled = false, which serves checkpoint 1 as it is" in ended.stderr
    listed = ctl_answer(run_folder, "checkpoints")["checkpoints"]
    assert [each["number"] for each in listed] == [1]


def status_of(run_folder: Path) -> pb.StatusResponse:
    """Ask the admin service in any thread, as `ctl` does in the main one."""
    with grpc.insecure_channel(f"unix:{run_folder.joinpath('ray').resolve()}/{SOCKET}", DIRECT) as channel:
        return pb_grpc.AdminServiceStub(channel).Status(pb.StatusRequest(), timeout=READY_S)  # type: ignore[no-any-return]


def page(address: str, path: str) -> str:
    with urllib.request.urlopen(f"http://{address}/{path}", timeout=20.0) as answer:
        return str(answer.read().decode())


@pytest.mark.process
@pytest.mark.timeout(600)
def test_a_checkpoint_is_served_in_one_process(tmp_path: Path) -> None:
    config = trained_run(tmp_path)
    served = ServedEpisode(saved(config), "a", explore=False)
    address, metrics = (f"127.0.0.1:{port}" for port in free_ports(2))
    checkpoint = config.checkpoints_folder / "checkpoint-00000001"
    options = ["--config", str(config.run_folder / "server.toml"), "--learner.enabled", "false", "--checkpoint", str(checkpoint)]
    options += ["--recording.metrics", metrics]
    with DaemonProcess(tmp_path / "alone", address, *options) as process:
        ready_s = process.wait_ready(READY_S)
        alone = psutil.Process(process.process.pid)
        cpu_s = sum(alone.cpu_times()[:2])
        assert alone.children() == [], "expected no process of Ray's"
        with PolicyClient(address) as client:
            episode = client.start_episode()
            for observation in observations(config):
                np.testing.assert_array_equal(client.get_action(episode, observation), served.ask(observation)[0])
                client.log_returns(episode, 1.0)
            client.end_episode(episode, observation)
            stats = client.stats()
            assert (stats.episodes_finished, stats.steps_completed, stats.return_mean) == (1, 12, 12.0)
            assert (stats.steps_waiting, stats.steps_handed_off, stats.steps_dropped) == (0, 0, 0)
            assert stats.training is not None
            assert (stats.training.weights_seq_no, client.weights_seq_no) == (70, 70)
            instance_id = client.server_info().instance_id
        ctl_steers_what_needs_no_learner(tmp_path / "alone", address, instance_id)
        wait_until(lambda: "policy_server_actions_total{" in page(metrics, "metrics"), "the first report")
        assert "policy_server_learner_enabled 0.0\n" in page(metrics, "metrics")
        assert page(metrics, "readyz").startswith("ok")
        assert ctl(tmp_path / "alone", "drain").returncode == 0
        assert process.process.wait(READY_S) == 0, process.text()
        print(f"ready after {ready_s:.1f} s, of which the processor took {cpu_s:.1f} s")  # noqa: T201
    with contextlib.closing(StoreReader(tmp_path / "alone" / "store.sqlite")) as reader:
        columns = 'length, "return", ended, weights_seq_no, explored, trained'
        assert reader.select(f"SELECT {columns} FROM whole_episode", ()) == [(12, 12.0, "terminated", 70, 0, 0)]
        calls = reader.select("SELECT call, who, refusal IS NULL FROM control ORDER BY id", ())
        assert calls == [("PauseLearning", "local", 0), ("RollBack", "local", 0), ("ListCheckpoints", "local", 1), ("Drain", "local", 1)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--learner.enabled", "false", "--checkpoint", "nowhere"], "checkpoint: expected the folder of a checkpoint"),
        (["--learner.enabled", "false"], "checkpoint: expected a whole checkpoint in"),
        (["--checkpoint", "nowhere"], "checkpoint: expected learner.enabled = false with it"),
    ],
)
def test_what_cannot_be_served_is_refused(options: list[str], message: str, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    ended = run_here("policy-server", "serve", "--run_folder", str(tmp_path / "run"), "--listen.address", address, *options)
    assert ended.returncode == 2
    assert message in ended.stderr


@pytest.mark.long
def test_a_checkpoint_of_other_spaces_is_refused(tmp_path: Path) -> None:
    config = trained_run(tmp_path)
    saved(config)
    checkpoint = config.checkpoints_folder / "checkpoint-00000001"
    address = f"127.0.0.1:{free_ports(1)[0]}"
    options = ["--run_folder", str(tmp_path / "run"), "--listen.address", address, "--checkpoint", str(checkpoint)]
    ended = run_here("policy-server", "serve", "--learner.enabled", "false", *options, "--spaces.action", '{type = "Discrete", n = 2}')
    assert ended.returncode == 2
    assert "made for the action space Discrete(3), but the configuration says Discrete(2)" in ended.stderr


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_server_that_loses_its_folder_ends_with_an_error(tmp_path: Path) -> None:
    config = trained_run(tmp_path)
    saved(config)
    checkpoint = config.checkpoints_folder / "checkpoint-00000001"
    address, folder = f"127.0.0.1:{free_ports(1)[0]}", tmp_path / "run"
    config = dataclasses.replace(config, run_folder=folder, listen=dataclasses.replace(config.listen, address=address))
    server = LoneServer(dataclasses.replace(config, learner=dataclasses.replace(config.learner, enabled=False)), checkpoint)
    instance_ids: list[str] = []

    def lose() -> None:
        try:
            with PolicyClient(address, config=ClientConfig(connect_timeout_s=READY_S)) as client:
                client.start_episode()
                instance_ids.extend([client.server_info().instance_id, status_of(folder).instance_id])
                folder.joinpath("new").write_text(json.dumps(dataclasses.asdict(dataclasses.replace(Owner.this_process(), host="beta"))))
                folder.joinpath("new").rename(folder / OWNER_FILE)
        finally:
            server.stop_for(is_final=False)  # as the next beat does

    loser = threading.Thread(target=lose)
    loser.start()
    with pytest.raises(FolderInUseError, match=r"taken over by process \d+ on beta"):
        server.run()
    loser.join()
    assert instance_ids[0] == instance_ids[1] != "", "one that the start has made"
