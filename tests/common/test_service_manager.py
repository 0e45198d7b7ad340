"""What the service manager is told, received at a real datagram socket."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from policyserver.common.service_manager import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The manager's socket, and what names it in the environment."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@policy-server-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        listening.settimeout(60.0)
        yield name, listening


def test_each_call_is_one_datagram(manager: tuple[str, socket.socket]) -> None:
    name, listening = manager
    told = ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())})
    assert told.watchdog_s == 60.0
    told.ready()
    told.status("serving\non two lines")
    told.status("serving\non two lines")
    told.alive()
    told.stopping("draining")
    assert [listening.recv(4096) for _ in range(4)] == [
        b"READY=1",
        b"STATUS=serving on two lines",
        b"WATCHDOG=1",
        b"STOPPING=1\nSTATUS=draining",
    ]


def test_a_status_is_bounded_and_stays_text(manager: tuple[str, socket.socket]) -> None:
    name, listening = manager
    ServiceManager({"NOTIFY_SOCKET": name}).status("ä" * 1000)
    assert listening.recv(4096).decode() == "STATUS=" + "ä" * 256


def test_no_child_inherits_the_socket(manager: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    name, listening = manager
    for variable, value in (("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", str(os.getpid()))):
        monkeypatch.setenv(variable, value)
    ServiceManager().ready()
    assert listening.recv(4096) == b"READY=1"
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ)


@pytest.mark.parametrize(("limit", "process"), [("", ""), ("0", ""), ("soon", ""), ("60000000", "1")])
def test_without_a_watchdog_of_ours_it_is_not_fed(manager: tuple[str, socket.socket], limit: str, process: str) -> None:
    name, listening = manager
    told = ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": limit, "WATCHDOG_PID": process})
    assert told.watchdog_s is None
    told.alive()
    told.ready()
    assert listening.recv(4096) == b"READY=1"


def test_without_a_manager_nothing_is_sent_and_nothing_fails() -> None:
    told = ServiceManager({})
    told.ready()
    told.alive()
    told.stopping("")


def test_a_manager_that_is_gone_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1000000"})
    with caplog.at_level(logging.WARNING):
        told.ready()
        told.alive()
    assert [record.name for record in caplog.records].count("policyserver.common.service_manager") == 1
    caplog.clear()
    assert ServiceManager({"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1000000"}).watchdog_s is None
    assert "expected /PATH or @NAME" in caplog.text


@pytest.mark.process
def test_a_manager_that_reads_nothing_does_not_stop_the_process(tmp_path: Path) -> None:
    """A full queue costs the time limit, not the service."""
    program = """
import sys, time
from policyserver.common import service_manager
service_manager._SEND_TIMEOUT_S = 0.1
told = service_manager.ServiceManager({"NOTIFY_SOCKET": sys.argv[1]})
for _ in range(2000):
    told.ready()
    if told._failed:
        print("went on")
        break
"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "full"))
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "full")], capture_output=True, text=True, timeout=200, check=True
        )
    assert done.stdout == "went on\n"
