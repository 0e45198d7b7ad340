"""What happens to steps that the learner can't absorb: the oldest are dropped by the segment, counted, and said once."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest

from policyserver.common.flags import StepFlag
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig
from policyserver.server.episodes.demand import Demand
from policyserver.server.episodes.sample_queue import SampleQueue, Segment
from policyserver.server.episodes.segments import SegmentBlock
from tests.server.core_harness import CoreHarness, Row, columns, observation, start

Make = Callable[..., CoreHarness]
NO_WAIT = StepFlag.NO_WAIT


def test_the_oldest_segments_are_dropped_whole_and_counted(make_harness: Make) -> None:
    harness = make_harness(hand_off=HandOffConfig(segment_steps=4, capacity_steps=10))
    for number in range(6):
        handle = harness.one(start(f"{number}", observation(number))).handle
        for step in (1, 2):
            harness.one(Row(handle, step, NO_WAIT, 1.0, observation(number)))
        harness.one(Row(handle, 3, StepFlag.TERMINATED, 1.0))
    statistics = harness.core.snapshot()
    assert (statistics.steps_completed, statistics.steps_waiting, statistics.steps_dropped) == (18, 9, 9)
    assert harness.pages_used == 3
    segments = harness.segments()
    assert [int(segment.get_observations(0)[0]) for segment in segments] == [3, 4, 5], "oldest first, and the newest kept"
    statistics = harness.core.snapshot()
    assert statistics.steps_completed == statistics.steps_handed_off + statistics.steps_dropped
    assert harness.pages_used == 0


def test_a_dropped_middle_leaves_segments_that_are_whole_in_themselves(make_harness: Make) -> None:
    harness = make_harness(hand_off=HandOffConfig(segment_steps=2, capacity_steps=4))
    harness.play("a", 9, flags=NO_WAIT)
    segments = harness.segments_apart()
    assert [int(segment.t_started) for segment in segments] == [6, 8]
    for segment in segments:
        segment.validate()
        assert segment.get_observations(-1, neg_index_as_lookback=True)[1] == segment.t_started - 1
    assert harness.core.snapshot().steps_dropped == 6


def test_segments_of_one_step_are_bounded_by_their_steps_and_by_their_number() -> None:
    by_steps = SampleQueue(lambda: 3, max_segments=100)
    freed = [by_steps.put(Segment(0, 0, page, 1, 0, False, False, None)) for page in range(5)]
    assert freed == [[], [], [], [0], [1]]
    assert (by_steps.steps_waiting, by_steps.steps_dropped) == (3, 2)
    assert [segment.page for segment in by_steps.take(2, 1000)] == [2, 3]
    assert by_steps.steps_waiting == 1
    assert [segment.page for segment in by_steps.take(9, 1000)] == [4]
    by_number = SampleQueue(lambda: 1000, max_segments=2)
    assert [by_number.put(Segment(0, 0, page, 1, 0, False, False, None)) for page in range(4)] == [[], [], [0], [1]]


def test_the_first_dropped_step_is_a_warning_that_says_what_to_do(make_harness: Make, caplog: pytest.LogCaptureFixture) -> None:
    harness = make_harness(hand_off=HandOffConfig(segment_steps=2, capacity_steps=4))
    with caplog.at_level(logging.WARNING):
        harness.play("a", 9, flags=NO_WAIT)
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    for word in ("dropped", "steps_dropped", "waits_for_learner", "hand_off.capacity_steps"):
        assert word in said


def test_what_is_dropped_while_the_server_stops_is_counted_and_no_reason_to_change_a_setting(
    make_harness: Make, caplog: pytest.LogCaptureFixture
) -> None:
    harness = make_harness(hand_off=HandOffConfig(segment_steps=2, capacity_steps=4))
    handle = harness.one(start("a", observation(0, 0))).handle
    harness.core.drain()
    with caplog.at_level(logging.WARNING):
        for number in range(1, 10):
            harness.one(Row(handle, number, reward=1.0, observation=observation(0, number)))
    assert harness.core.snapshot().steps_dropped > 0
    assert not caplog.records


def test_a_sample_larger_than_the_queue_is_answered_when_that_is_full(make_harness: Make) -> None:
    harness = make_harness(hand_off=HandOffConfig(segment_steps=4, capacity_steps=8))
    got: list[SegmentBlock] = []
    harness.loop.call_soon(harness.core.sample, 1_000_000, 3600.0, got.extend)
    harness.play("a", 5)
    harness.settle()
    assert [int(block.lengths.sum()) for block in got] == [5]


@pytest.mark.long
def test_a_burst_of_thousands_of_episodes_in_lock_step_drops_nothing(make_harness: Make) -> None:
    """All pages fill in one pass, and all episodes end in another: with an unset capacity there is room for both."""
    count, steps = 3000, 130
    harness = make_harness(demand=Demand(fragment_steps=4000), episodes=EpisodesConfig(max_open=count))
    handles = harness.submit(columns(np.zeros(count), 0, StepFlag.START | NO_WAIT, [f"{number}" for number in range(count)]))
    handed_off = 0
    for step in range(1, steps + 1):
        harness.submit(columns(handles, step, StepFlag.TERMINATED if step == steps else NO_WAIT))
        if step % 64 == 0:
            handed_off += sum(len(segment) for segment in harness.segments())
    assert harness.core.snapshot().steps_dropped == 0
    assert handed_off + sum(len(segment) for segment in harness.segments()) == count * steps
