"""A checkpoint whose weights are NaN is never served: not by a roll-back, beside the policy that learns, alone, or at a start."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.common.settings import load
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.preflight import checkpoint_folder
from policyserver.server.processes.training_report import Progress
from tests.commands import run_here
from tests.integration.controlled_server import Players, Server, asked_once

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SPOILED = "learner_group/learner/rl_module/default_policy/module_state.pkl"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("finite"))
    with server.daemon:
        assert server.answer("wait-ready", "--timeout_s", "300")["state"] == "serving"
        yield server


def spoil(state: Any) -> str:
    """Put a NaN into the first weight of a state, and return its name."""
    for name, value in state.items():
        if isinstance(value, dict):
            return spoil(value)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            state[name] = value.copy()
            state[name].flat[0] = np.nan
            return str(name)
    raise AssertionError("no weights")


def save_spoiled(server: Server, number: int) -> tuple[Path, str]:
    """Save a copy of a checkpoint, with a NaN, as the newest one; return its folder and the name of the weight."""
    config = load(ServerConfig, server.run_folder / "server.toml", {"run_folder": str(server.run_folder)})
    checkpoints = checkpoint_folder(config, claim=False)
    source = checkpoints.whole(number).path
    named: list[str] = []

    def write(folder: Path) -> None:
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json*"))
        for name in ("served.pkl", SPOILED):
            state = pickle.loads((folder / name).read_bytes())
            named.append(spoil(state.get("rl_module", state)))
            (folder / name).write_bytes(pickle.dumps(state))

    return checkpoints.save(write, Progress(iteration=1, weights_seq_no=1), pin=True).path, named[0]


def test_it_is_refused_with_the_array_and_what_is_served_stays(server: Server) -> None:
    with Players(server.address):
        server.has_iterated(2)
    server.answer("pause")
    before = asked_once(server.address)
    bad, weight = save_spoiled(server, server.answer("save", "--pin")["checkpoint"]["number"])
    number = str(int(bad.name.rpartition("-")[2]))
    for ask in ("rollback", "load"):
        ended = server.ctl(ask, number)
        assert ended.returncode == 1, ask
        assert f"refused (FAILED_PRECONDITION): {bad}: expected finite numbers, received" in ended.stderr, ended.stderr
        assert f"{weight}: 1 of " in ended.stderr
        assert "are not finite, the first is nan at" in ended.stderr
        assert "choose an earlier checkpoint" in ended.stderr
    assert server.ctl("promote", f"checkpoint-{number}").returncode == 1, "for it is not loaded"
    assert asked_once(server.address) == pytest.approx(before)
    assert server.daemon.terminate(200.0) == 0
    newest = max((path for path in bad.parent.iterdir() if path.is_dir()), key=lambda path: path.name)
    assert newest == bad, "and so a start would take it"
    toml = str(server.run_folder.parent / "server.toml")
    run = ("--run_folder", str(server.run_folder))
    commands = [
        ("serve", "--config", toml, *run),
        ("serve", "--config", toml, *run, "--learner.enabled", "false"),
        ("evaluate", *run, "--checkpoint", number, "--episodes", "1"),
        ("export", *run, "--to", str(bad.parents[1] / "policy.npz")),
    ]
    for command in commands:
        ended = subprocess.run([sys.executable, "-m", "policyserver.server", *command], capture_output=True, text=True, timeout=200.0)
        said = ended.stdout + ended.stderr
        assert ended.returncode != 0, command
        assert f"{bad}: expected finite numbers, received" in said, said
        assert f"{weight}: 1 of " in said
        assert "Traceback" not in said
    assert not (bad.parents[1] / "policy.npz").exists()
    bad.rename(bad.parents[1] / "bad")
    ended = run_here("policy-server", "export", *run, "--to", str(bad.parents[1] / "policy.npz"))
    assert ended.returncode == 0, ended.stderr
