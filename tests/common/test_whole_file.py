"""A file is there whole or not at all, and what can't be written is named as it was asked for."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from policyserver.common.whole_file import writing_whole


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "policy.npz"
    path.write_text("before")
    with writing_whole(path) as part:
        part.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), OSError(errno.EIO, "of another file", "/other")])
def test_what_the_block_raises_comes_as_it_is_and_leaves_the_file_that_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "policy.npz"
    path.write_text("before")

    def write() -> None:
        with writing_whole(path) as part:
            part.write_text("half")
            raise error

    with pytest.raises(type(error)) as caught:
        write()
    assert caught.value is error
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("written", [False, True])
def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path, written: bool) -> None:
    path = tmp_path / "gone" / "policy.npz"
    if written:
        path = tmp_path / "policy.npz"
    with pytest.raises(OSError, match="policy") as caught, writing_whole(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(path)
    assert caught.value.errno == (errno.ENOSPC if written else errno.ENOENT)


def test_a_name_as_long_as_may_be_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 251}.npz"
    with writing_whole(path) as part:
        part.write_text("whole")
    assert path.read_text() == "whole"
