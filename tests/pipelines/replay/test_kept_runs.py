"""A bounded number of runs is kept: the newest stay, and so does what is in use or no run's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from policyserver.common.file_lock import FileLock
from policyserver.common.settings import SettingsError, load
from policyserver.monitoring.store.write_access import HousekeeperLock
from policyserver.pipelines.config import PipelineConfig, PipelineRecordingConfig
from policyserver.pipelines.replay.kept_runs import drop_oldest
from policyserver.pipelines.replay.run_folder import folder_of, parts_of
from policyserver.pipelines.replay.run_record import recorded_run
from policyserver.server.daemon.folder_lock import FolderLock

PATTERN = Path("{time}-seed{seed}")


def nothing() -> None:
    return


def made_run(root: Path, number: int, name: str = "202601{:02}T000000Z-seed1") -> Path:
    """A folder that looks as a run leaves it, of the day of its number."""
    run = root / name.format(number)
    (run / "checkpoints").mkdir(parents=True)
    for file in ("run.json", "pipeline.toml", "events.arrows", "run.lock", "lock", "checkpoints/lock", "store.sqlite-housekeeper"):
        (run / file).touch()
    os.utime(run / "run.json", (number, number))
    return run


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


@contextmanager
def held(lock: FileLock) -> Iterator[None]:
    assert lock.take()
    try:
        yield
    finally:
        lock.release()


def test_the_newest_stay_with_the_one_that_begins(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = [made_run(tmp_path, number) for number in range(1, 7)]
    drop_oldest(runs[-1], tmp_path / PATTERN, 3)
    assert names(tmp_path) == {run.name for run in runs[3:]}
    assert caplog.text.count("removed, for more runs were there than recording.keep_runs") == 3


def test_a_run_that_was_resumed_is_as_new_as_its_newest_part_and_the_one_that_begins_always_stays(tmp_path: Path) -> None:
    runs = [made_run(tmp_path, number) for number in range(1, 7)]
    os.utime(runs[0] / "run.json", (100, 100))
    drop_oldest(runs[1], tmp_path / PATTERN, 3)
    assert names(tmp_path) == {runs[0].name, runs[1].name, runs[5].name}


def test_one_in_use_stays(tmp_path: Path) -> None:
    runs = [made_run(tmp_path, number) for number in range(1, 8)]
    playing, serving, saving, recording = (
        FileLock(runs[0] / "run.lock"),
        FolderLock(runs[1]),
        FolderLock(runs[2] / "checkpoints"),
        HousekeeperLock(runs[3] / "store.sqlite"),
    )
    with held(playing), held(serving), held(saving), held(recording):
        drop_oldest(runs[-1], tmp_path / PATTERN, 1)
        assert names(tmp_path) == {run.name for run in (*runs[:4], runs[-1])}
    drop_oldest(runs[-1], tmp_path / PATTERN, 1)
    assert names(tmp_path) == {runs[-1].name}


def test_what_is_no_run_of_this_kind_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    others = [
        made_run(tmp_path / "runs", 1, "server"),
        made_run(tmp_path / "runs", 1, "202601{:02}T000000Z-seed1.kept"),
        made_run(tmp_path / "runs", 1, "best-202601{:02}T000000Z-seed1"),
        made_run(tmp_path / "runs", 2, "mine-202601{:02}T000000Z"),
    ]
    for number, file in ((3, "run.json"), (4, "pipeline.toml")):
        others.append(made_run(tmp_path / "runs", number))
        (others[-1] / file).unlink()
    made_run(elsewhere, 5)
    others.append(tmp_path / "runs" / "20260105T000000Z-seed1")
    others[-1].symlink_to(elsewhere / "20260105T000000Z-seed1")
    others.append(tmp_path / "runs" / "20260106T000000Z-seed1")
    others[-1].write_text("a file")
    runs = [made_run(tmp_path / "runs", number) for number in (7, 8)]
    drop_oldest(runs[-1], tmp_path / "runs" / PATTERN, 1)
    assert names(tmp_path / "runs") == {path.name for path in (*others, runs[-1])}
    assert (elsewhere / "20260105T000000Z-seed1" / "run.json").exists()


def test_runs_of_a_pattern_of_ones_own_are_counted_apart(tmp_path: Path) -> None:
    usual = made_run(tmp_path, 1)
    own = [made_run(tmp_path, number, "a+b-7-202601{:02}T000000Z") for number in (1, 2, 3)]
    drop_oldest(own[-1], tmp_path / "a+b-{seed}-{time}", 2)
    assert names(tmp_path) == {usual.name, own[1].name, own[2].name}
    drop_oldest(usual, tmp_path / "mine", 1)
    assert names(tmp_path) == {usual.name, own[1].name, own[2].name}


def test_what_a_process_had_begun_to_remove_is_removed(tmp_path: Path) -> None:
    run = made_run(tmp_path, 1)
    made_run(tmp_path, 2, ".202601{:02}T000000Z-seed1.removed")
    made_run(tmp_path, 2, ".mine.removed")
    drop_oldest(run, tmp_path / PATTERN, 1)
    assert names(tmp_path) == {run.name, ".mine.removed"}


def test_one_that_cannot_be_removed_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs = [made_run(tmp_path, number) for number in range(1, 4)]

    def refused(path: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "rename", refused)
    drop_oldest(runs[-1], tmp_path / PATTERN, 1)
    assert names(tmp_path) == {run.name for run in runs}
    assert caplog.text.count("can't be removed") == 2


@pytest.mark.process
def test_a_run_that_begins_keeps_so_many(tmp_path: Path) -> None:
    recording = PipelineRecordingConfig(run_folder=tmp_path / PATTERN, keep_runs=2)
    config = PipelineConfig(recording=recording)
    runs = []
    for _ in range(4):
        runs.append(folder_of(tmp_path / PATTERN, 0))
        with recorded_run(config, runs[-1], nothing):
            pass
    assert names(tmp_path) == {run.name for run in runs[-2:]}
    with recorded_run(config, runs[-2], nothing):
        first = folder_of(tmp_path / PATTERN, 0)
        with recorded_run(PipelineConfig(recording=PipelineRecordingConfig(run_folder=tmp_path / PATTERN, keep_runs=1)), first, nothing):
            assert names(tmp_path) == {runs[-2].name, first.name}, "the one that goes on is in use"


@pytest.mark.process
def test_parts_of_a_run_are_bounded_too(tmp_path: Path) -> None:
    config = PipelineConfig(recording=PipelineRecordingConfig(run_folder=tmp_path / "mine", keep_runs=3))
    (tmp_path / "mine").mkdir()
    for _ in range(6):
        with recorded_run(config, tmp_path / "mine", nothing):
            pass
    assert [part.name for part in parts_of(tmp_path / "mine")] == ["4", "5", "mine"]


@pytest.mark.process
def test_none_keeps_all_and_fewer_than_one_is_refused(tmp_path: Path) -> None:
    runs = [made_run(tmp_path, number) for number in range(1, 60)]
    with recorded_run(PipelineConfig(recording=PipelineRecordingConfig(keep_runs=None)), runs[-1], nothing):
        assert names(tmp_path) == {run.name for run in runs}
    with pytest.raises(SettingsError, match=r"keep_runs.*received 0"):
        load(PipelineConfig, overrides={"recording.keep_runs": 0})
