"""Who has a run folder: processes of one machine, and of hosts that share the folder but not the lock.

A host is a process in UTS and mount namespaces of its own: another name, another boot id, and another file where the folder's lock is, as
with a network's file system whose locks stay on each client.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from policyserver.server.daemon.folder_lock import FolderInUseError
from policyserver.server.daemon.folder_owner import OWNER_FILE, ClaimLeftError, FolderOwner, Owner, owner_elsewhere
from tests.descriptors import open_descriptors
from tests.services import wait_until

BEAT_S, SILENCE_S = 0.1, 1.0
NEVER_S = 600.0
"""The silence for tests in which nobody is silent: an owner may have to wait for a processor, or for its disk, for longer than a second."""

HOLDER = f"""
import sys, threading
from pathlib import Path
from policyserver.server.daemon.folder_owner import FolderOwner
lost = threading.Event()
def say(why):
    print(why, flush=True)
print("begins", flush=True)
sys.stdin.readline()
try:
    owner = FolderOwner(Path(sys.argv[1]), say, beat_s={BEAT_S}, silence_s=float(sys.argv[2]))
except Exception as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(1)
print("has it", flush=True)
sys.stdin.read()
owner.release()
"""
ON_A_HOST = """
set -e
mount --make-rprivate /
hostname "$1"
echo "boot-of-$1" > "$2/boot_id"; mount --bind "$2/boot_id" /proc/sys/kernel/random/boot_id
if [ -n "$4" ]; then touch "$2/lock" "$3/lock"; mount --bind "$2/lock" "$3/lock"; fi
exec "$5" -c "$6" "$3" "$7"
"""


class Host:
    """A process on a host of its own that claims the folder once it is told to."""

    def __init__(self, name: str, folder: Path, own: Path, *, shares_locks: bool, silence_s: float) -> None:
        own.mkdir()
        words = [name, str(own), str(folder), "" if shares_locks else "own", sys.executable, HOLDER, str(silence_s)]
        self.process = subprocess.Popen(
            ["unshare", "--uts", "--mount", "bash", "-c", ON_A_HOST, "host", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def claims(self) -> str:
        """Have it claim the folder, and return what it says then."""
        self.begin()
        return self.says()

    def begin(self) -> None:
        assert self.says() == "begins"
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def says(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line or self.process.stderr is None, self.process.stderr.read() if self.process.stderr else ""
        return line

    def end(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait()


@pytest.fixture
def host(tmp_path: Path, missing_service: Callable[[str], NoReturn]) -> Iterator[Callable[..., Host]]:
    if os.geteuid() != 0 or subprocess.run(["unshare", "--uts", "--mount", "true"], capture_output=True, check=False).returncode:
        missing_service("namespaces take root")
    (tmp_path / "run").mkdir()
    made: list[Host] = []

    def make(name: str, *, shares_locks: bool = False, silence_s: float = NEVER_S) -> Host:
        own = tmp_path / f"{name}-{len(made)}"
        made.append(Host(name, tmp_path / "run", own, shares_locks=shares_locks, silence_s=silence_s))
        return made[-1]

    yield make
    for each in made:
        each.process.kill()
        each.process.communicate()


@pytest.mark.process
@pytest.mark.parametrize("shares_locks", [True, False])
def test_a_second_host_refuses_and_names_the_first(host: Callable[..., Host], shares_locks: bool) -> None:
    first = host("alpha", shares_locks=shares_locks)
    assert first.claims() == "has it"
    refused = host("beta", shares_locks=shares_locks).claims()
    assert refused.startswith("FolderInUseError")
    assert f"in use by process {first.process.pid} on alpha since 2" in refused
    assert "stop that one or choose another folder" in refused


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_owner_on_the_same_host_is_known_at_once(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path), str(NEVER_S)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdin.write("\n")
        first.stdin.flush()
        assert [first.stdout.readline() for _ in range(2)] == ["begins\n", "has it\n"]
        with pytest.raises(FolderInUseError, match=rf"process {first.pid} on \S+ since"):
            FolderOwner(tmp_path)
        first.send_signal(number)
        first.wait()
        FolderOwner(tmp_path, wait=lambda seconds: pytest.fail("it waits")).release()


def test_another_boot_is_another_machine_whatever_its_name() -> None:
    """Containers of one image have its machine id, and may have one host name on two machines."""
    me = Owner.this_process()
    assert me.is_surely_dead(dataclasses.replace(me, token="u")), "the lock is of this kernel"
    elsewhere = dataclasses.replace(me, boot="another boot")
    assert not elsewhere.is_surely_dead(me)
    assert dataclasses.replace(elsewhere, released=True).is_surely_dead(me)
    assert not dataclasses.replace(me, boot="").is_surely_dead(dataclasses.replace(me, boot="")), "no boot id is no kernel's"


@pytest.mark.process
def test_an_owner_on_another_host_that_is_dead_is_followed_after_its_silence(host: Callable[..., Host]) -> None:
    first = host("alpha")
    assert first.claims() == "has it"
    first.end()
    second = host("beta", silence_s=SILENCE_S)
    began = time.monotonic()
    assert second.claims() == "has it"
    assert time.monotonic() - began > SILENCE_S
    assert host("gamma").claims().startswith("FolderInUseError"), "it has beats of its own"


@pytest.mark.process
def test_an_owner_that_has_released_it_is_followed_at_once(host: Callable[..., Host]) -> None:
    first = host("alpha")
    assert first.claims() == "has it"
    first.process.communicate("")
    assert host("beta").claims() == "has it", "which takes less than the silence"


@pytest.mark.process
def test_an_owner_that_was_cut_off_loses_the_folder_and_is_told(host: Callable[..., Host], tmp_path: Path) -> None:
    first = host("alpha")
    assert first.claims() == "has it"
    first.process.send_signal(signal.SIGSTOP)
    second = host("beta", silence_s=SILENCE_S)
    assert second.claims() == "has it"
    first.process.send_signal(signal.SIGCONT)
    assert f"taken over by process {second.process.pid} on beta" in first.says()
    time.sleep(3 * BEAT_S)
    assert json.loads((tmp_path / "run" / OWNER_FILE).read_text())["host"] == "beta"


@pytest.mark.process
def test_of_two_that_wait_for_the_same_silence_one_gets_it(host: Callable[..., Host]) -> None:
    first = host("alpha")
    assert first.claims() == "has it"
    first.end()
    others = [host("beta", silence_s=SILENCE_S), host("gamma", silence_s=SILENCE_S)]
    for each in others:  # both are there by then, so that they wait for it at the same time
        each.begin()
    said = sorted(each.says().split(" ")[0] for each in others)
    assert said == ["FolderInUseError", "has"]


def test_a_file_that_is_no_owner_s_is_watched_like_one_and_then_replaced(tmp_path: Path) -> None:
    assert owner_elsewhere(tmp_path) is None
    (tmp_path / OWNER_FILE).write_bytes(b"\xff{")
    assert owner_elsewhere(tmp_path) is not None, "a start would wait"
    FolderOwner(tmp_path, silence_s=0.05).release()
    assert json.loads((tmp_path / OWNER_FILE).read_text())["released"]
    assert owner_elsewhere(tmp_path) is None


def test_a_claim_is_left_when_the_server_stops(tmp_path: Path) -> None:
    (tmp_path / OWNER_FILE).write_bytes(b"{}")
    with pytest.raises(ClaimLeftError):
        FolderOwner(tmp_path, wait=lambda seconds: True)
    FolderOwner(tmp_path, silence_s=0.05).release()


@pytest.mark.long
def test_a_file_that_is_removed_by_hand_is_written_again(tmp_path: Path) -> None:
    owner = FolderOwner(tmp_path, beat_s=0.05)
    (tmp_path / OWNER_FILE).unlink()
    wait_until((tmp_path / OWNER_FILE).exists, "the file")
    assert owner.loss == ""
    owner.release()
    owner.release()


@pytest.mark.long
def test_a_file_that_cannot_be_written_again_costs_no_other_descriptor(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    owner = FolderOwner(folder, beat_s=0.02)
    folder.rename(tmp_path / "gone")  # at once: a beat between the removal of the file and that of the folder would write the file again
    wait_until(lambda: "can't be written" in caplog.text, "the first beat that fails")
    others = [os.open(os.devnull, os.O_RDWR) for _ in range(4)]  # which would get a number that was closed
    time.sleep(0.2)
    for each in others:
        os.close(each)  # fails if it was closed
    owner.release()
    folder.mkdir()
    FolderOwner(folder).release()


def test_a_claim_that_is_left_after_the_silence_is_put_down(tmp_path: Path) -> None:
    (tmp_path / OWNER_FILE).write_bytes(b"{}")
    waits = iter([False, True])
    with pytest.raises(ClaimLeftError):
        FolderOwner(tmp_path, wait=lambda seconds: next(waits), silence_s=0.05)
    assert json.loads((tmp_path / OWNER_FILE).read_text())["released"], "another machine need not wait"
    assert not [name for _, name in open_descriptors() if str(tmp_path) in name]
