"""Points of many bars go as one batch, in their order, with the time at which they came; none is lost, and none waits for the next bar."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.points import Points
from policyserver.monitoring.sink import MultiSink, SinkStatistics
from policyserver.pipelines.runtime import point_buffer
from policyserver.pipelines.runtime.point_buffer import MOST_POINTS, PointBuffer
from policyserver.pipelines.runtime.routes import Recorder


class Batches:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.points: list[Points] = []

    def write(self, points: Points) -> None:
        self.points.append(points)

    def flush(self, timeout_s: float) -> bool:
        return True

    def close(self, timeout_s: float) -> None:
        return

    def statistics(self) -> SinkStatistics:
        return SinkStatistics()


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Batches:
    monkeypatch.setattr(point_buffer, "FLUSH_S", 1e9)  # only counts and flushes
    return Batches()


def buffer_of(sink: Batches) -> PointBuffer:
    """Make one whose first points have gone."""
    made = PointBuffer(sink, "step", {"run": "r"})
    made.flush()
    return made


def add(buffer: PointBuffer, first: int, count: int, **more: Any) -> None:
    bars = np.arange(first, first + count)
    buffer.add({"episode": [f"AAA-{bar}" for bar in bars], "bar": bars, **more}, {"symbol": ["AAA"] * count})


def test_points_of_several_bars_are_one_batch_in_their_order(sink: Batches) -> None:
    buffer = buffer_of(sink)
    for bar in range(3):
        add(buffer, 10 * bar, 2)
    assert not sink.points
    buffer.flush()
    (points,) = sink.points
    assert points.field_values("bar") == [0, 1, 10, 11, 20, 21]
    assert points.field_values("episode")[2] == "AAA-10"
    assert points.tag_values("symbol") == ["AAA"] * 6
    assert np.all(np.diff(points.times_ns) > 0)


def test_points_have_the_time_at_which_they_came(sink: Batches) -> None:
    buffer = buffer_of(sink)
    add(buffer, 0, 1)
    between_ns = int(Points.one("step", {}, {"bar": 0}).times_ns[0])
    add(buffer, 1, 1)
    buffer.flush()
    before_ns, after_ns = sink.points[0].times_ns.tolist()
    assert before_ns < between_ns < after_ns


def test_no_more_wait_than_are_bounded(sink: Batches) -> None:
    buffer = buffer_of(sink)
    add(buffer, 0, MOST_POINTS - 1)
    assert not sink.points
    add(buffer, 0, 1)
    assert [len(points) for points in sink.points] == [MOST_POINTS]


def test_points_of_other_columns_are_a_batch_of_their_own(sink: Batches) -> None:
    buffer = buffer_of(sink)
    add(buffer, 0, 1)
    add(buffer, 1, 1, price=[100.0])
    add(buffer, 2, 1, price=np.array([101.0]))
    buffer.flush()
    assert [points.field_values("bar") for points in sink.points] == [[0], [1, 2]]
    assert sink.points[1].field_values("price") == [100.0, 101.0]


def test_a_point_after_a_pause_goes_at_once() -> None:
    """As a live bar does, of which there is one a minute."""
    sink = Batches()
    add(PointBuffer(sink, "step", {}), 0, 1)
    assert len(sink.points) == 1


def test_points_of_several_threads_are_all_there(sink: Batches) -> None:
    buffer = buffer_of(sink)

    def add_all() -> None:
        for bar in range(50):
            add(buffer, bar, 1)

    threads = [threading.Thread(target=add_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    buffer.flush()
    assert sorted(bar for points in sink.points for bar in points.field_values("bar")) == sorted(4 * list(range(50)))


def test_a_recorder_without_a_sink_makes_nothing_and_one_with_a_sink_hands_over_what_waits(sink: Batches) -> None:
    assert not Recorder(MultiSink(), {}).is_kept
    recorder = Recorder(MultiSink([sink]), {"run": "r"})
    assert recorder.is_kept
    recorder.flush()
    for bar in range(2):
        recorder.add("step", {"bar": [bar]}, symbol=["AAA"])
        recorder.add("order", {"bar": [bar]}, symbol=["AAA"])
    recorder.flush()
    bars = {measurement: [p.field_values("bar") for p in sink.points if p.measurement == measurement] for measurement in ("step", "order")}
    assert bars == {"step": [[0, 1]], "order": [[0, 1]]}
