"""The hosts of the tests are hosts: neither files, sockets nor processes of one are on another, and a cut is silent."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from policyserver.server.processes.driver_link import DriverLink
from tests.cluster.hosts import SHARED, Host

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.long]

CONNECT = """
import socket, sys
line = socket.socket(socket.AF_UNIX)
print(line.connect_ex(sys.argv[1]))
"""
LISTEN = """
import socket, time
listener = socket.create_server(("0.0.0.0", 9000))
print("listens", flush=True)
time.sleep(60)
"""
REACH = """
import socket, sys
line = socket.socket()
line.settimeout(1.0)
try:
    line.connect((sys.argv[1], 9000))
    print("there")
except TimeoutError:
    print("silence")
except OSError as error:
    print(error)
"""
HEAR = """
import socket, sys
line = socket.create_connection((sys.argv[1], 9000), timeout=2.0)
print("connected", flush=True)
try:
    print("heard", line.recv(1))
except TimeoutError:
    print("silence")
"""
LINK = """
import pathlib, sys, time
from policyserver.server.processes.driver_link import DriverLink
link = DriverLink(pathlib.Path(sys.argv[1]))
print("listens", flush=True)
time.sleep(60)
"""


def python(host: Host, program: str, *arguments: str) -> str:
    return host.run(sys.executable, "-c", program, *arguments).strip()


def started(host: Host, program: str, *arguments: str) -> None:
    host.start("sh", "-c", f'exec "{sys.executable}" -c "$0" "$@" > /tmp/out', program, *arguments)
    wait_for(host, "/tmp/out", "listens\n")


def wait_for(host: Host, file: str, text: str) -> None:
    deadline = time.monotonic() + 30.0
    while not (host.path(file).exists() and host.path(file).read_text() == text):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("folder", ["/tmp", "/var/tmp", "/dev/shm", "/run"])
def test_what_one_host_writes_is_absent_on_another_and_here(two_hosts: Sequence[Host], folder: str) -> None:
    first, second = two_hosts
    first.write(f"{folder}/a_host_wrote_this", b"mine")
    assert first.run("cat", f"{folder}/a_host_wrote_this") == "mine"
    assert second.complete("cat", f"{folder}/a_host_wrote_this").returncode != 0
    assert not Path(f"{folder}/a_host_wrote_this").exists()


def test_the_shared_folder_is_the_same_on_all_and_stays_when_a_host_is_switched_off(two_hosts: Sequence[Host]) -> None:
    first, second = two_hosts
    first.write(f"{SHARED}/a_host_wrote_this", b"for all")
    first.write("/tmp/a_host_wrote_this", b"mine")
    assert second.run("cat", f"{SHARED}/a_host_wrote_this") == "for all"
    first.close()
    first.switch_on()
    assert first.run("cat", f"{SHARED}/a_host_wrote_this") == "for all"
    assert first.complete("cat", "/tmp/a_host_wrote_this").returncode != 0
    started(first, LISTEN)
    assert python(second, REACH, first.address) == "there"


def test_the_drivers_unix_socket_is_reached_on_its_own_host_alone(two_hosts: Sequence[Host], tmp_path: Path) -> None:
    first, second = two_hosts
    started(first, LINK, "/tmp/driver.sock")
    assert python(first, CONNECT, "/tmp/driver.sock") == "0"
    assert python(second, CONNECT, "/tmp/driver.sock") == str(errno.ENOENT)
    link = DriverLink(tmp_path / "driver.sock")  # of this machine, whose folder for temporary files is hidden on the hosts
    try:
        assert python(first, CONNECT, str(link.path)) == str(errno.ENOENT)
    finally:
        link.close()


def test_a_cut_host_is_silent_and_a_healed_one_answers(two_hosts: Sequence[Host]) -> None:
    first, second = two_hosts
    started(second, LISTEN)
    assert python(first, REACH, second.address) == "there"
    second.cut()
    assert python(first, REACH, second.address) == "silence"
    assert python(second, REACH, second.address) == "there", "the host itself goes on"
    second.heal()
    assert python(first, REACH, second.address) == "there"


def test_two_hosts_that_are_parted_reach_a_third_and_not_each_other(three_hosts: Sequence[Host]) -> None:
    first, second, third = three_hosts
    started(second, LISTEN)
    first.part_from(second)
    assert python(first, REACH, second.address) == "silence"
    assert python(third, REACH, second.address) == "there"
    first.unite_with(second)
    assert python(first, REACH, second.address) == "there"


def test_a_host_ends_with_all_its_processes_and_without_traces(two_hosts: Sequence[Host]) -> None:
    first, second = two_hosts
    started(second, LISTEN)
    (listener,) = second.processes("create_server")
    assert not first.processes("create_server")
    follow = 'exec "$0" -c "$1" "$2" > /tmp/heard 2>&1'
    follower = first.start("sh", "-c", follow, sys.executable, HEAR, second.address)
    wait_for(first, "/tmp/heard", "connected\n")
    second.close()
    second.close()
    assert not listener.is_running() or listener.status() == psutil.STATUS_ZOMBIE
    assert "refused" not in python(first, REACH, second.address), "no host is there to refuse"
    assert follower.wait(20.0) == 0
    assert first.path("/tmp/heard").read_text() == "connected\nsilence\n", "of an end of its process nothing is heard"


def test_hosts_end_with_the_process_that_made_them() -> None:
    program = (
        "import os, signal, subprocess; from tests.cluster.hosts import hosts\n"
        "with hosts(1) as (host,):\n"
        "    host.start('sleep', '4242', stdout=subprocess.DEVNULL)\n"  # which may still be entering the host
        "    print(host._namespaces.pid, host._bridge.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True, timeout=60.0)
    deadline = time.monotonic() + 60.0
    for pid in map(int, killed.stdout.split()):
        while os.path.exists(f"/proc/{pid}/ns/net") and psutil.pid_exists(pid):
            assert time.monotonic() < deadline, "a host outlived its maker"
            time.sleep(0.02)
