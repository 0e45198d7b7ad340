"""Each run has a folder of its own, named after time and seed, and the newest of them is the one to resume."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyserver.pipelines.replay.run_folder import new_run_folder, newest_run_folder


def test_each_run_has_a_folder_of_its_own_named_after_time_and_seed(tmp_path: Path) -> None:
    folders = [new_run_folder(tmp_path / "runs", 7) for _ in range(5)]
    assert len(set(folders)) == 5
    assert all(folder.is_dir() and "Z-seed7" in folder.name for folder in folders)


def test_the_newest_run_is_found_and_other_folders_are_not_taken_for_one(tmp_path: Path) -> None:
    for name in ("20250101T000000Z-seed0", "20260101T000000Z-seed3", "server", "zzz", "20270101T000000Z-seed0.bak"):
        (tmp_path / name).mkdir()
    (tmp_path / "20280101T000000Z-seed0").write_text("a file")
    assert newest_run_folder(tmp_path).name == "20260101T000000Z-seed3"


@pytest.mark.parametrize("name", ["missing", "."])
def test_without_a_run_there_is_nothing_to_resume(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match="expected the folder of an earlier run"):
        newest_run_folder(tmp_path / name)
