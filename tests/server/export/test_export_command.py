"""`policy-server export` writes what a run has learned, and says why where it can't."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from policyserver.client import LocalPolicy
from policyserver.common.settings import dump_toml
from policyserver.server.config.server_config import ServerConfig
from tests.commands import run_here
from tests.server.export_harness import ServedEpisode, observations, run_config_of, saved

OWN_MODULE = {"module_class": "python:tests.server.nested_module.NestedModule", "model_config": {}}


def run_folder(tmp_path: Path, config: ServerConfig | None = None) -> ServerConfig:
    """Make the folder of a run, with the configuration as a server writes it."""
    config = dataclasses.replace(config or run_config_of(connectors__mean_std_filter=True), run_folder=tmp_path / "run")
    config.run_folder.mkdir()
    (config.run_folder / "server.toml").write_text(dump_toml(config), encoding="utf-8")
    return config


def export(config: ServerConfig, to: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run_here("policy-server", "export", "--run-folder", str(config.run_folder), "--to", str(to), *options)


@pytest.mark.long
def test_the_newest_checkpoint_is_written_and_acts_as_it_does(tmp_path: Path) -> None:
    config = run_folder(tmp_path)
    policies = [saved(config), saved(config)]
    to = tmp_path / "policy.npz"
    ended = export(config, to)
    assert (ended.returncode, ended.stdout) == (0, f"{to}: checkpoint 2, policy version 70\n"), ended.stderr
    served, local = ServedEpisode(policies[1], "a", explore=False), LocalPolicy.load(to)
    assert (local.origin.checkpoint, local.origin.run) == (2, "run")
    for observation in observations(config):
        np.testing.assert_array_equal(local.act(observation), served.ask(observation)[0])
    assert export(config, to, "--checkpoint", "1").returncode == 0
    assert LocalPolicy.load(to).origin.checkpoint == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy.npz", "run"], "nothing unfinished is left"


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--checkpoint", "7"], 2, "expected the number of a checkpoint that is there, 1, received 7"),
        (["--checkpoint", "x"], 2, "--checkpoint"),
        (["--to", "policy.pkl"], 2, r"to: expected a file whose name ends in .npz or .onnx"),
        (["--run-folder", "nowhere"], 2, "run-folder: expected the folder of a run, with a server.toml, received nowhere"),
    ],
)
def test_what_is_not_there_is_refused(options: list[str], status: int, message: str, tmp_path: Path) -> None:
    config = run_folder(tmp_path)
    saved(config)
    ended = export(config, tmp_path / "policy.npz", *options)
    assert ended.returncode == status
    assert message in ended.stderr
    assert not (tmp_path / "policy.npz").exists()


@pytest.mark.parametrize(
    ("to", "reason"),
    [("/sys/policy.npz", "Permission denied"), (f"{'x' * 260}.npz", "File name too long"), (".", "expected a file, received the folder")],
)
def test_a_file_that_cannot_be_written_is_named_and_not_the_unfinished_one(to: str, reason: str, tmp_path: Path) -> None:
    target = tmp_path / to if to != "." else tmp_path / "folder.npz"
    if to == ".":
        target.mkdir()
    ended = export(run_folder(tmp_path), target)
    assert ended.returncode == 2
    assert str(target) in ended.stderr
    assert reason in ended.stderr
    assert str(os.getpid()) not in ended.stderr.replace(str(tmp_path), "")
    assert not list(tmp_path.glob(".*")), "nothing unfinished is left"


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    ended = export(run_folder(tmp_path), tmp_path / "policy.npz")
    assert ended.returncode == 2
    assert "checkpoint: " in ended.stderr


@pytest.mark.long
def test_a_damaged_checkpoint_is_passed_over_or_refused_by_its_number(tmp_path: Path) -> None:
    config = run_folder(tmp_path)
    saved(config), saved(config)
    file = next((config.checkpoints_folder / "checkpoint-00000002").rglob("module_state.pkl"))
    file.write_bytes(file.read_bytes()[:-1])
    assert "checkpoint 1," in export(config, tmp_path / "policy.npz").stdout
    ended = export(config, tmp_path / "policy.npz", "--checkpoint", "2")
    assert ended.returncode == 2
    assert "damaged" in ended.stderr


CONNECTORS = {"env_to_module_connector": "python:tests.server.export_harness.own_connectors"}
REFUSED = {
    "net of one's own": (run_config_of(algorithm__rl_module=OWN_MODULE), "expected one of RLlib's default nets, received the module"),
    "connector of one's own": (run_config_of(algorithm__env_runners=CONNECTORS), "received the connector ScaleObservations"),
    "net that is not known": (run_config_of(net={"fcnet_hiddens": [8], "fcnet_activation": "elu"}), "received the layer ELU"),
    "distribution of values": (run_config_of(name="DQN", algorithm__training={"num_atoms": 5}), "num_atoms = 5"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_file_cannot_carry_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    config, message = REFUSED[name]
    config = run_folder(tmp_path, config)
    saved(config)
    ended = export(config, tmp_path / "policy.npz")
    assert ended.returncode == 1
    assert message in ended.stderr
    assert not (tmp_path / "policy.npz").exists()
