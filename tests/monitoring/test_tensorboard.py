"""TensorBoard's event files have the numbers of training, results and serving, and are bounded on disk."""

from __future__ import annotations

import struct
import threading
import time
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from policyserver.monitoring import tensorboard
from policyserver.monitoring.points import Points
from policyserver.monitoring.recording import RecordingConfig, prepared
from policyserver.monitoring.sink import MultiSink
from policyserver.monitoring.tensorboard import TensorBoardSink

RUN = {"run": "r", "policy": "PPO", "worker": "server-1"}


def events(folder: Path) -> list[Event]:
    """Read event files as TensorBoard does: records of a length, its checksum, an event, its checksum."""
    found = []
    for file in sorted(folder.glob("events*")):
        data, place = file.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            found.append(Event.FromString(data[place + 12 : place + 12 + length]))
            place += 16 + length
    return [event for event in found if event.summary.value]


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    return {(value.tag, event.step): value.simple_value for event in events(folder) for value in event.summary.value}


def test_figures_are_scalars_by_measurement_and_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFLUXDB_V2_URL", raising=False)
    sink = prepared(RecordingConfig(tensorboard=True), None, tmp_path)()
    assert isinstance(sink, MultiSink)
    for iteration in (1, 2):
        sink.write(Points.one("train", RUN, {"iteration": iteration, "loss": 0.5 * iteration, "checkpoint_path": "x"}))
    sink.write(Points.one("result", RUN, {"episodes": 40, "return_mean": 12.5}))
    sink.write(Points.one("server", RUN | {"worker": "serving-1"}, {"boot_id": "b", "uptime_s": 3.2, "actions": 7}))
    sink.write(Points.one("step", RUN, {"episode": "a", "bar": 1, "reward": 1.0}))
    assert sink.flush(60.0)
    sink.close(60.0)
    assert sink.statistics().accepted == sink.statistics().stored == 4, "steps are not drawn"
    assert scalars(tmp_path / "tensorboard") == {
        ("train/iteration", 1): 1.0, ("train/loss", 1): 0.5, ("train/iteration", 2): 2.0, ("train/loss", 2): 1.0,
        ("result/episodes", 40): 40.0, ("result/return_mean", 40): 12.5,
        ("server/serving-1/uptime_s", 3): pytest.approx(3.2), ("server/serving-1/actions", 3): 7.0,
    }  # fmt: skip


def test_it_is_off_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFLUXDB_V2_URL", raising=False)
    prepared(RecordingConfig(), None, tmp_path)().close(1.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_the_oldest_files_make_way(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path, max_bytes=20_000)
    for iteration in range(1, 401):
        sink.write(Points.one("train", RUN, {"iteration": iteration, "loss": 0.5}))
        assert sink.flush(60.0)
    sink.close(60.0)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 20_000 + 200
    steps = [step for _, step in scalars(tmp_path)]
    assert (min(steps) > 1, max(steps)) == (True, 400)


def test_a_disk_that_takes_nothing_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = TensorBoardSink(tmp_path)

    def fail(points: Points) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sink, "_append", fail)
    sink.write(Points.one("train", RUN, {"iteration": 1, "loss": 0.5}))
    assert sink.flush(60.0)
    assert (sink.statistics().stored, sink.statistics().dead_lettered) == (0, 1)
    assert sink.statistics().last_error == "points are lost: [Errno 28] No space left on device"
    monkeypatch.undo()
    sink.write(Points.one("train", RUN, {"iteration": 2, "loss": 0.5}))
    assert sink.flush(60.0)
    sink.close(60.0)
    assert {step for _, step in scalars(tmp_path)} == {2}


def test_old_files_that_cannot_be_deleted_end_nothing(tmp_path: Path) -> None:
    (tmp_path / "events.of-another-user").mkdir()  # which `unlink` refuses, as it does another user's files
    sink = TensorBoardSink(tmp_path, max_bytes=1)
    for iteration in (1, 2, 3):
        sink.write(Points.one("train", RUN, {"iteration": iteration, "loss": 0.5}))
        assert sink.flush(60.0)
    sink.close(60.0)
    assert "old files can't be deleted" in sink.statistics().last_error
    assert sink.statistics().stored == 3


def test_closing_keeps_its_time_with_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard, "_MOST_AT_ONCE", 10)
    sink = TensorBoardSink(tmp_path)
    begun = threading.Event()

    def slowly(points: Points) -> None:
        begun.set()
        time.sleep(0.01)

    monkeypatch.setattr(sink, "_append", slowly)
    for iteration in range(10_000):
        sink.write(Points.one("train", RUN, {"iteration": iteration, "loss": 0.5}))
    assert begun.wait(60.0)
    sink.close(0.1)  # while all of them take more than a minute
    assert not sink._thread.is_alive()
    assert 0 < sink.statistics().backlog < 10_000
