"""Our commands, when their output is cut off, has no room, no alphabet or is closed: no traceback, and the exit status of what they did."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

from policyserver.monitoring.store.store import EmbeddedStore
from tests.monitoring.filled_store import FilledRun, fill
from tests.services import wait_until

pytestmark = pytest.mark.process

CHECK = ("policy-server", "check-config")
LONG = (CHECK, ("policy-server", "serve", "--help"), ("policy-pipeline", "run", "--help"), ("policy-monitor", "export", "--store", "s"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store `s` in it."""
    folder = tmp_path_factory.mktemp("streams")
    fill(folder / "s", FilledRun("rün"), steps=64 * 40)
    return folder


def run(command: tuple[str, ...], folder: Path, stdout: int | IO[bytes], **environment: str) -> tuple[int, str]:
    """Run a command; its status and what it said on standard error."""
    program = str(Path(sys.executable).with_name(command[0]))
    kept = os.environ | {"COLUMNS": "120"} | environment
    ended = subprocess.run([program, *command[1:]], stdout=stdout, stderr=subprocess.PIPE, cwd=folder, env=kept, timeout=200, check=False)
    return ended.returncode, ended.stderr.decode()


@contextlib.contextmanager
def closed_pipe() -> Iterator[IO[bytes]]:
    """A pipe that nobody reads from."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as pipe:
        yield pipe


@pytest.mark.slow
@pytest.mark.parametrize("command", LONG, ids=" ".join)
def test_a_reader_who_leaves_is_no_failure(command: tuple[str, ...], folder: Path) -> None:
    with closed_pipe() as pipe:
        assert run(command, folder, pipe) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [CHECK, LONG[3], (*LONG[3], "--format", "csv", "--measurement", "step")], ids=["settings", "lines", "table"]
)
def test_output_without_room_is_one_line_and_status_1_where_the_output_was_wanted(command: tuple[str, ...], folder: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        assert run(command, folder, full) == (1, f"{command[0]}: standard output can't be written: No space left on device\n")


def test_closed_streams_and_full_ones_for_errors_change_no_status(folder: Path) -> None:
    serve = f"{Path(sys.executable).with_name('policy-server')} serve"
    for redirected, status in (
        (f"{serve} --help >&-", 0),
        (f"{serve} --sed 1 2>&-", 2),
        (f"{serve} --sed 1 2>/dev/full", 2),
        (f"{serve} --help <&-", 0),
    ):
        ended = subprocess.run(["bash", "-c", redirected], cwd=folder, capture_output=True, timeout=200, check=False)
        assert (ended.returncode, ended.stderr) == (status, b""), redirected


def test_a_closed_standard_output_is_not_taken_by_the_next_file() -> None:
    program = """
import os, sys, tempfile
from policyserver.monitoring.__main__ import main
main(["export", "--store", "nothing"])
with tempfile.TemporaryFile() as file:
    os.write(2, f"{file.fileno()}".encode())
"""
    ended = subprocess.run(["bash", "-c", f"{sys.executable} -c '{program}' >&-"], capture_output=True, text=True, timeout=200, check=False)
    assert int(ended.stderr.split()[-1]) > 2, "a stray print would be written into the file"


@pytest.mark.slow
def test_an_alphabet_without_a_letter_gets_an_escape(folder: Path) -> None:
    for command, expected in (
        ((*CHECK, "--run_folder", "rün"), 'run_folder = "r\\u00fcn"'),
        (("policy-monitor", "export", "--store", "s", "--format", "csv", "--measurement", "step"), "rün,"),
    ):
        with (folder / "out").open("wb") as out:
            assert run(command, folder, out, PYTHONIOENCODING="ascii") == (0, "")
        assert expected in (folder / "out").read_text(encoding="utf-8")


def serves(process: subprocess.Popen[bytes]) -> bool:
    return any(at.status == psutil.CONN_LISTEN for at in psutil.Process(process.pid).net_connections("tcp"))


def test_a_page_is_served_though_nobody_can_be_told_where(tmp_path: Path) -> None:
    EmbeddedStore(tmp_path / "store.sqlite").close(30.0)
    program = [str(Path(sys.executable).with_name("policy-monitor")), "serve", "--store", "store.sqlite", "--address", "127.0.0.1:0"]
    with closed_pipe() as pipe:
        served = subprocess.Popen(program, stdout=pipe, stderr=subprocess.PIPE, cwd=tmp_path)
        wait_until(lambda: serves(served), "the page to be served", 60.0)
        with pytest.raises(subprocess.TimeoutExpired):
            served.wait(0.5)  # what can't be told has been tried
        served.terminate()
        assert served.communicate(timeout=200.0)[1] == b""
    assert served.returncode == 0


def test_an_interrupted_export_ends_as_one_that_was_interrupted(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    from policyserver.monitoring.__main__ import main

    def interrupted(*_: object) -> io.BytesIO:
        raise KeyboardInterrupt

    monkeypatch.setattr("policyserver.monitoring.store.export.Exporter.line_protocol", interrupted)
    assert main(["export", "--store", str(folder / "s"), "--output", str(folder / "lines")]) == 130
    assert not list(folder.glob("lines*"))
