"""A private Ray listens on loopback alone, has files and a token for this user alone, and is gone after its stop."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from policyserver.server.daemon.ray_start import RayProcess

pytestmark = pytest.mark.process


@contextlib.contextmanager
def stop_handler() -> Iterator[Callable[..., None]]:
    """Set a handler of SIGTERM, as the daemon does before it starts Ray."""

    def on_stop(*_: object) -> None:
        pytest.fail("nobody sent it")

    before = signal.signal(signal.SIGTERM, on_stop)
    try:
        yield on_stop
    finally:
        signal.signal(signal.SIGTERM, before)


def family() -> dict[psutil.Process, list[str]]:
    """Return the command lines of this process and of those below it that still run."""
    found: dict[psutil.Process, list[str]] = {}
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            found[process] = process.cmdline()
    return found


def listening() -> set[tuple[str, int]]:
    """Return the addresses at which they listen."""
    found: set[tuple[str, int]] = set()
    for process in family():
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {(at.laddr.ip, at.laddr.port) for at in process.net_connections("inet") if at.status == psutil.CONN_LISTEN}
    return found


before_ray: set[tuple[str, int]] = set()
"""What earlier tests have left listening."""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RayProcess, Path]]:
    pointer = tmp_path_factory.mktemp("run") / "ray"
    before_ray.update(listening())
    process = RayProcess(pointer)
    with stop_handler() as handler:
        process.start(num_cpus=2)
        assert signal.getsignal(signal.SIGTERM) is handler, "a SIGTERM during the start reaches who started it"
    yield process, pointer
    process.stop()
    process.stop()
    assert not process.folder.exists()
    assert not pointer.is_symlink()


@ray.remote(num_cpus=1)
class Probe:
    def environment(self) -> dict[str, Any]:
        return {"niceness": os.getpriority(os.PRIO_PROCESS, 0), "mode": os.environ["RAY_AUTH_MODE"]}


def test_ray_listens_on_loopback_alone_and_serving_comes_first(started: tuple[RayProcess, Path]) -> None:
    probe = Probe.remote()  # type: ignore[attr-defined]
    assert ray.get(probe.environment.remote()) == {"niceness": os.getpriority(os.PRIO_PROCESS, 0), "mode": "token"}
    rays = listening() - before_ray
    assert rays, "Ray has sockets"
    for address, _ in rays:
        ip = ipaddress.ip_address(address)
        assert (getattr(ip, "ipv4_mapped", None) or ip).is_loopback, address
    words = [word for command in family().values() for word in command]
    assert not any("dashboard.py" in word or "monitor.py" in word for word in words if "log_monitor" not in word)


def test_rays_files_and_token_are_for_this_user_alone(started: tuple[RayProcess, Path]) -> None:
    process, pointer = started
    assert pointer.resolve() == process.folder.resolve()
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert token.parent == process.folder
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(process.folder.stat().st_mode) == 0o700
    assert len(token.read_text()) >= 32
