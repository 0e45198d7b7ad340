"""The note of a roll-back can be written on a full disk, is read back as it was, and is passed over where it is none."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from policyserver.server.daemon.roll_back_mark import RollBackMark, read_mark, remove_mark, write_mark

ON_A_FULL_DISK = """
import sys
from pathlib import Path
from policyserver.server.daemon.roll_back_mark import RollBackMark, read_mark, write_mark
folder = Path(sys.argv[1])
try:
    with (folder / "filling").open("wb") as file:
        while True:
            file.write(bytes(1024))
except OSError as error:
    print(error.strerror)
for number in (7, 8):
    write_mark(folder, RollBackMark(number, 1, folder / "checkpoint-00000012"))
print(read_mark(folder))
"""


@pytest.mark.parametrize("path", ["checkpoint-00000012", "../elsewhere: run/checkpoints/checkpoint-00000003"])
def test_a_note_is_read_as_it_was_written_until_it_is_removed(tmp_path: Path, path: str) -> None:
    for version in (3, 4):
        mark = RollBackMark(version, 2, (tmp_path / path).resolve())
        write_mark(tmp_path, mark)
        assert read_mark(tmp_path) == mark
    remove_mark(tmp_path)
    remove_mark(tmp_path)
    assert read_mark(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["nothing", "1:x:checkpoint-00000001", None])
def test_what_is_no_note_is_passed_over(tmp_path: Path, target: str | None, caplog: pytest.LogCaptureFixture) -> None:
    if target is None:
        (tmp_path / "rolled-back").touch()
    else:
        (tmp_path / "rolled-back").symlink_to(target)
    assert read_mark(tmp_path) is None
    assert "expected the note of a roll-back" in caplog.text


def test_what_can_not_be_noted_is_said_and_raises_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_mark(tmp_path / "gone", RollBackMark(1, 1, tmp_path / "gone" / "checkpoint-00000001"))
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "a start before the next save goes on without it" in caplog.text


@pytest.mark.process
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare lets a test mount file systems")
def test_it_needs_no_room(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("this user may not mount file systems")
    mount = f"mount -t tmpfs -o size=64k none {tmp_path} && exec {sys.executable} - {tmp_path}"
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount], input=ON_A_FULL_DISK, capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.splitlines() == ["No space left on device", repr(RollBackMark(8, 1, tmp_path / "checkpoint-00000012"))]
