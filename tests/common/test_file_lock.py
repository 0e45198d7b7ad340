"""A file lock: one process has it, until it releases it or ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from policyserver.common.file_lock import FileLock

HOLDER = """
import sys
from pathlib import Path
from policyserver.common.file_lock import FileLock
print(FileLock(Path(sys.argv[1])).take(), flush=True)
sys.stdin.read()
"""


def test_only_one_has_it_and_the_next_one_gets_it_after_a_release(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert (first.take(), first.take(), second.take()) == (True, True, False)
    first.release()
    first.release()
    assert (second.take(), first.take()) == (True, False)
    second.release()


@pytest.mark.process
def test_a_process_that_is_killed_has_it_no_longer(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        lock = FileLock(tmp_path / "lock")
        assert not lock.take()
        holder.kill()
        holder.wait()
        assert lock.take()
        lock.release()


def test_a_folder_that_is_not_there_has_no_lock(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileLock(tmp_path / "nothing" / "lock").take()


def test_a_release_that_fails_is_not_tried_on_the_descriptor_of_another_file(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.take()
    os.close(lock._fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        lock.release()
    other = os.open(os.devnull, os.O_RDONLY)
    lock.release()
    os.close(other)  # fails if it was closed
