"""Batches of refused updates lie in a folder of a bounded number of files and bytes, readable without pickle."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import numpy as np
import pytest

from policyserver.server.guard.findings import BATCH, RefusedUpdate
from policyserver.server.guard.quarantine import Quarantine, UnreadableBatchError, read_batch


def finding(number: int, floats: int = 100) -> RefusedUpdate:
    rewards = np.random.default_rng(number).normal(size=floats)
    return RefusedUpdate(
        BATCH, f"finding {number}", number, 1, {"default_policy/rewards": rewards, "default_policy/obs/eye": np.ones((2, 3), np.float32)}
    )


def numbers(folder: Path) -> list[int]:
    return sorted(int(path.stem.rpartition("-")[2]) for path in folder.iterdir())


def test_a_file_has_the_batch_and_what_was_found(tmp_path: Path) -> None:
    path = Quarantine(tmp_path / "quarantine", 3, 10**6).keep(finding(1))
    assert path is not None
    with np.load(path, allow_pickle=False) as kept:
        assert (str(kept["reason"]), str(kept["what"])) == (BATCH, "finding 1")
        np.testing.assert_array_equal(kept["default_policy/rewards"], finding(1).batch["default_policy/rewards"])
        assert kept["default_policy/obs/eye"].dtype == np.float32
    batch = read_batch(path)
    assert (batch.reason, batch.what, batch.weights_seq_no) == (BATCH, "finding 1", 1)
    np.testing.assert_array_equal(batch.columns["default_policy"]["obs"]["eye"], np.ones((2, 3)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_what_is_no_kept_batch_is_refused_by_its_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", reason=np.array("x"))
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("other.npz", "text.npz", "absent.npz"):
        with pytest.raises(UnreadableBatchError, match=f"expected a file of the folder `quarantine` of a run, received .*{name}"):
            read_batch(tmp_path / name)


def test_the_newest_are_kept_also_after_a_restart(tmp_path: Path) -> None:
    for number in range(5):
        assert Quarantine(tmp_path, 3, 10**6).keep(finding(number)) is not None
    assert numbers(tmp_path) == [3, 4, 5]


def test_their_bytes_are_bounded_and_one_that_is_too_large_is_not_kept(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path, 100, 28_000)
    for number in range(6):
        assert quarantine.keep(finding(number, 1000)) is not None
    assert numbers(tmp_path) == [4, 5, 6]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 28_000
    assert quarantine.keep(finding(7, 10_000)) is None
    assert numbers(tmp_path) == [4, 5, 6]


def test_nothing_is_kept_where_no_file_may_be_or_there_is_no_batch(tmp_path: Path) -> None:
    assert Quarantine(tmp_path / "none", 0, 10**6).keep(finding(1)) is None
    assert Quarantine(tmp_path / "none", 3, 10**6).keep(RefusedUpdate(BATCH, "too large", 1, 1)) is None
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cant_be_written_is_told_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.ERROR):
        assert Quarantine(tmp_path / "file" / "quarantine", 3, 10**6).keep(finding(1)) is None
    assert "the batch of a refused update is not kept" in caplog.text
