"""A wheel that is installed serves as the editable install does: Ray's workers find the serving runner in it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest

from policyserver.client import PolicyClient
from tests.integration.daemon_process import DaemonProcess
from tests.ports import free_address

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def wheel_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The interpreter of an environment with the wheel, and with the dependencies of this one but not its editable install."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    pip = (sys.executable, "-m", "pip")
    run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    place = tmp_path / "environment"
    venv.create(place)
    python = place / "bin" / "python"
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path))
    run(*pip, "install", "--quiet", "--no-deps", "--target", packages, wheel, cwd=tmp_path)
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")  # its own .pth files are not read
    script = "import sys; from policyserver.common.commands import policy_server; policy_server()"
    (python.parent / "policy-server").write_text(f"#!{python}\n{script}\n", encoding="utf-8")
    (python.parent / "policy-server").chmod(0o755)
    return python


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_server_of_an_installed_wheel_serves_an_episode(wheel_python: Path, tmp_path: Path) -> None:
    runner = Path(run(wheel_python, "-c", "import policyserver.server.runner as runner; print(runner.__file__)", cwd=tmp_path))
    assert runner.is_relative_to(tmp_path), "the wheel's modules are meant, not the checkout's"
    importers, address = tmp_path / "importers", free_address()
    with runner.with_name("env_runner.py").open("a", encoding="utf-8") as module:
        module.write(f"\nimport os\nwith open({str(importers)!r}, 'a') as file:\n    file.write(f'{{os.getpid()}}\\n')\n")
    with DaemonProcess(tmp_path / "run", address, python=wheel_python) as daemon:
        daemon.wait_ready()
        assert str(daemon.actor().pid) in importers.read_text(encoding="utf-8").split(), "the actor runs what the wheel has"
        with PolicyClient(address) as client:
            episode = client.start_episode()
            for _ in range(3):
                assert client.get_action(episode, np.zeros(10, np.float32)) in (0, 1, 2)
                client.log_returns(episode, 1.0)
            client.end_episode(episode, np.zeros(10, np.float32))
        assert daemon.terminate() == 0
