"""The wheel holds packages and contract alone, its client runs on the base dependencies, and a broken install is told in one line."""

from __future__ import annotations

import email
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]  # the first one installs

ROOT = Path(__file__).parents[1]

# Runs in an environment that has the wheel and its base dependencies alone.
ROUND_TRIP = """
import importlib.util, sys
import numpy as np
from policyserver.client import PolicyClient

absent = ["ray", "torch", "river", "influxdb_client", "pandas"]
assert not [name for name in absent if importlib.util.find_spec(name)], "the client's environment has more than the client needs"
with PolicyClient(sys.argv[1]) as client:
    episode = client.start_episode()
    for _ in range(3):
        action = client.get_action(episode, np.zeros(4, np.float32))
        assert action in (0, 1), action
        client.log_returns(episode, 1.0)
    client.end_episode(episode, np.zeros(4, np.float32))
    client.start_episodes(2)
sys.stdout.write("round trip done")
"""


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, ROOT)
    assert built.returncode == 0, built.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def bare_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory, missing_service: Callable[[str], NoReturn]) -> Path:
    """The interpreter of a new environment into which the wheel was installed without extras, at the pinned versions."""
    place = tmp_path_factory.mktemp("bare")
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    installed = run(python, "-m", "pip", "install", "--quiet", "--retries", "10", "--constraint", ROOT / "requirements.txt", wheel)
    if installed.returncode and "No matching distribution" in installed.stderr:
        missing_service(f"pip finds no package index here: {installed.stderr.strip().splitlines()[-1]}")
    assert installed.returncode == 0, installed.stderr
    return python


def test_the_wheel_holds_the_packages_the_contract_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert top == {"policyserver"}, "one name to import"
    assert "policyserver/__init__.py" not in names, "it would hide what another distribution adds to the namespace"
    parts = ("client", "common", "monitoring", "pipelines", "server")
    assert {f"policyserver/{part}/{file}" for part in parts for file in ("__init__.py", "py.typed")} <= set(names)
    assert "policyserver/monitoring/page/static/index.html" in names
    assert "policyserver/pipelines/demo/demo_server.toml" in names
    assert "policyserver/v1/policy_service.proto" in names
    assert "policyserver/v1/policy_service_pb2_grpc.py" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith("_test.py")]


def test_the_base_dependencies_are_the_client_s_alone(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = email.message_from_bytes(archive.read(next(name for name in archive.namelist() if name.endswith("METADATA"))))
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(line.split("<")[0].split(">")[0].split("=")[0] for line in required) == [
        "annotated-types",
        "grpcio",
        "gymnasium",
        "numpy",
        "protobuf",
    ]
    assert {"server", "pipelines", "influx", "all"} <= set(metadata.get_all("Provides-Extra", []))


RUN_MONITOR = """
import sys
sys.path[:0] = sys.argv[1:]
from policyserver.common.commands import policy_monitor
sys.argv = ["policy-monitor", "--help"]
policy_monitor()
"""


def run_monitor(*roots: Path) -> subprocess.CompletedProcess[str]:
    """Run a command where only these source roots are on the path, as an editable install of another version leaves it."""
    return run(sys.executable, "-I", "-S", "-c", RUN_MONITOR, *roots)


def test_an_editable_install_of_a_version_with_other_folders_is_refused_in_one_line() -> None:
    done = run_monitor(ROOT / "client", ROOT / "proto", ROOT / "a folder that is gone")
    assert done.returncode == 1
    assert done.stderr == (
        "policy-monitor: expected policyserver.monitoring, policyserver.pipelines, policyserver.server to be installed, received only "
        f"{ROOT}/client/policyserver, {ROOT}/proto/policyserver: an older version is installed here; run `pip install` again\n"
    )


def test_a_file_left_behind_that_hides_the_other_roots_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "policyserver").mkdir()
    for part in ("common", "v1"):
        (tmp_path / "policyserver" / part).symlink_to(ROOT / "proto" / "policyserver" / part)
    (tmp_path / "policyserver" / "__init__.py").touch()
    done = run_monitor(tmp_path, *(ROOT / root for root in ("client", "server", "monitoring", "pipelines")))
    assert done.returncode == 1
    assert done.stderr == (
        f"policy-monitor: {tmp_path}/policyserver/__init__.py hides policyserver.client, policyserver.monitoring, policyserver.pipelines, "
        "policyserver.server: delete this file, which an older version left behind\n"
    )


@pytest.mark.slow
def test_a_bare_environment_runs_the_client_against_a_live_server(bare_python: Path, cartpole_server: str, tmp_path: Path) -> None:
    """Neither ray nor torch is installed there, and nothing of this checkout is on its path."""
    done = run(bare_python, "-I", "-c", ROUND_TRIP, cartpole_server, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "round trip done"


@pytest.mark.slow
def test_a_users_own_modules_are_not_in_the_way(bare_python: Path, tmp_path: Path) -> None:
    """Whoever has a client.py beside his script, and a server.py, imports ours all the same."""
    for name in ("client", "server", "monitoring", "pipelines", "proto", "common"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('this is the user's own')\n", encoding="utf-8")
    (tmp_path / "script.py").write_text("from policyserver.client import PolicyClient\nprint(PolicyClient.__module__)\n", encoding="utf-8")
    done = run(bare_python, "script.py", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "policyserver.client.policy_client\n", "")
