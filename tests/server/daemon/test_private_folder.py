"""The folder of a private Ray: what may be removed, and how long its path may be."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from policyserver.common.settings import SettingsError
from policyserver.server.daemon.ray_start import RayProcess

MAKE_AND_BE_KILLED = """
import os, signal, sys
from pathlib import Path
from policyserver.server.daemon.ray_start import RayProcess
process = RayProcess(Path(sys.argv[1]))
sys.stdout.write(f"{process.folder}\\n"); sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def kept_environment() -> Iterator[None]:
    """RayProcess prepares the process's environment for Ray, and tempfile remembers where temporary files lie."""
    kept, temporary = dict(os.environ), tempfile.tempdir
    yield
    os.environ.clear()
    os.environ.update(kept)
    tempfile.tempdir = temporary


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.mark.long
def test_a_copy_of_a_run_folder_does_not_cost_its_running_original_anything(run: Path, tmp_path: Path) -> None:
    original = RayProcess(run / "ray")
    copied_run = tmp_path / "copy"
    shutil.copytree(run, copied_run, symlinks=True)  # as `cp -a` does
    copy = RayProcess(copied_run / "ray")
    assert (original.folder / "token").exists()
    assert (run / "ray").resolve() == original.folder
    assert (copied_run / "ray").resolve() == copy.folder != original.folder
    copy.stop()
    original.stop()
    assert not original.folder.exists()
    assert not copy.folder.exists()
    assert not (run / "ray").is_symlink()


@pytest.mark.process
def test_what_a_killed_process_left_behind_is_removed(run: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", MAKE_AND_BE_KILLED, str(run / "ray")], capture_output=True, text=True, timeout=60)
    left = Path(killed.stdout.strip())
    assert (left / "token").exists()
    assert (run / "ray").resolve() == left
    process = RayProcess(run / "ray")
    assert not left.exists()
    process.stop()


@pytest.mark.parametrize("name", ["documents", "policy-server-documents"])
def test_a_folder_of_somebody_elses_stays_whatever_the_link_says(name: str, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir(mode=0o700)
    (folder / "thesis").write_text("years")
    (run / "ray").symlink_to(folder)
    process = RayProcess(run / "ray")
    assert (folder / "thesis").read_text() == "years"
    assert (run / "ray").resolve() == process.folder
    process.stop()


def test_what_is_no_link_stays_and_is_named(run: Path) -> None:
    (run / "ray").mkdir()
    (run / "ray" / "thesis").write_text("years")
    with pytest.raises(SettingsError, match=r"run_folder: expected .*/run/ray to be a link .* move it elsewhere"):
        RayProcess(run / "ray")
    assert (run / "ray" / "thesis").read_text() == "years"


@pytest.mark.parametrize("length", [5, 16, 17, 27, 60, 150])
def test_sockets_have_short_paths_whatever_tmpdir_is(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("/tmp", "x" * (length - 5))
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("TMPDIR", str(folder))
    tempfile.tempdir = None
    process = RayProcess()
    session = process.folder / "ray" / f"session_2026-11-29_00-06-51_123456_{2**22}" / "sockets"
    session.mkdir(parents=True)
    try:
        assert stat.S_IMODE(process.folder.stat().st_mode) == 0o700
        with socket.socket(socket.AF_UNIX) as listener:
            try:
                listener.bind(str(session / "plasma_store"))
            except OSError as error:
                pytest.fail(f"Ray could not make a socket at {session}: {error}")
    finally:
        process.stop()
        if length > 5:
            folder.rmdir()


def test_without_any_folder_that_will_do_tmpdir_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyserver.server.daemon.private_folder._MAX_BYTES", 3)
    with pytest.raises(SettingsError, match=r"TMPDIR: expected a folder .* at most 3 bytes"):
        RayProcess()
