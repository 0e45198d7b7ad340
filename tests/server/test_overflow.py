"""What happens to steps that the learner can't absorb: dropped by the segment, or replies withheld."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from policyserver.errors import ServerUnavailableError
from policyserver.flags import StepFlag
from server.config import EpisodesConfig, HandOffConfig
from server.episodes.hand_off import HandOff, Segment
from server.episodes.rows import Replies
from server.episodes.segments import SegmentBlock
from tests.server.core_harness import Answer, CoreHarness, Row, answers_of, observation, start

Make = Callable[..., CoreHarness]
BLOCK = HandOffConfig(segment_steps=4, capacity_steps=8, overflow="block", block_timeout_s=30.0)


def answered(future: asyncio.Future[Replies]) -> list[Answer]:
    assert future.done()
    return answers_of(future.result())


def test_the_oldest_segments_are_dropped_whole_and_counted(make_harness: Make) -> None:
    harness = make_harness(hand_off=HandOffConfig(segment_steps=4, capacity_steps=10))
    for number in range(6):
        handle = harness.one(start(f"{number}", observation(number))).handle
        for step in (1, 2):
            harness.one(Row(handle, step, reward=1.0, observation=observation(number)))
        harness.one(Row(handle, 3, StepFlag.TERMINATED, 1.0))
    statistics = harness.core.snapshot()
    assert (statistics.steps_completed, statistics.steps_waiting, statistics.steps_dropped) == (18, 9, 9)
    assert harness.core._trajectories.pages_used == 3
    segments = harness.segments()
    assert [int(segment.get_observations(0)[0]) for segment in segments] == [3, 4, 5], "oldest first, and the newest kept"
    statistics = harness.core.snapshot()
    assert statistics.steps_completed == statistics.steps_handed_off + statistics.steps_dropped
    assert harness.core._trajectories.pages_used == 0


def test_a_dropped_middle_leaves_segments_that_are_whole_in_themselves(make_harness: Make) -> None:
    harness = make_harness(hand_off=HandOffConfig(segment_steps=2, capacity_steps=4))
    harness.play("a", 9)
    segments = harness.segments_apart()
    assert [int(segment.t_started) for segment in segments] == [6, 8]
    for segment in segments:
        segment.validate()
        assert segment.get_observations(-1, neg_index_as_lookback=True)[1] == segment.t_started - 1
    assert harness.core.snapshot().steps_dropped == 6


def test_segments_of_one_step_are_bounded_by_their_steps() -> None:
    hand_off = HandOff(capacity_steps=3)
    freed = [hand_off.put(Segment(0, page, 1, 0, False, False, None)) for page in range(5)]
    assert freed == [[], [], [], [0], [1]]
    assert (hand_off.steps_waiting, hand_off.steps_dropped) == (3, 2)
    assert hand_off.is_full
    assert [segment.page for segment in hand_off.take(2, 1000)] == [2, 3]
    assert hand_off.steps_waiting == 1
    assert [segment.page for segment in hand_off.take(9, 1000)] == [4]


def fill(harness: CoreHarness) -> tuple[int, int]:
    """Hand off 8 steps, as many as may wait; return the handles of two open episodes."""
    one, two = harness.send(start("one"), start("two"))
    harness.play("full", 8)
    assert harness.core.snapshot().steps_waiting == 8
    return one.handle, two.handle


def test_replies_are_withheld_until_the_learner_collects(make_harness: Make) -> None:
    harness = make_harness(hand_off=BLOCK)
    one, two = fill(harness)
    waiting = [harness.post(Row(one, 1, reward=1.0), Row(two, 1, reward=1.0)), harness.post(start("three"))]
    harness.advance(29.0)
    assert not any(future.done() for future in waiting)
    statistics = harness.core.snapshot()
    assert (statistics.rows_withheld, statistics.steps_waiting, statistics.reward_sum) == (3, 8, 8.0)
    assert len(harness.segments_apart()) == 2
    harness.settle()
    assert [answer.error for future in waiting for answer in answered(future)] == [None] * 3
    assert harness.core.snapshot().reward_sum == 10.0
    assert harness.core.snapshot().steps_dropped == 0


def test_ends_pass_while_others_wait(make_harness: Make) -> None:
    harness = make_harness(hand_off=BLOCK)
    one, two = fill(harness)
    waiting = harness.post(Row(two, 1))
    (end,) = harness.send(Row(one, 1, StepFlag.TERMINATED, 1.0))
    assert end.error is None
    assert not waiting.done()
    assert harness.core.snapshot().episodes_open == 1


def test_what_is_withheld_too_long_is_refused_and_may_be_sent_again(make_harness: Make) -> None:
    harness = make_harness(hand_off=BLOCK)
    one, two = fill(harness)
    rows = [Row(one, 1, reward=1.0), Row(two, 1, reward=1.0)]
    # Several messages of several rows: each must be found among the others.
    waiting = [harness.post(*rows), harness.post(start("three"), start("four")), harness.post(start("five"), start("six"))]
    harness.advance(30.0)
    for future in waiting:
        for answer in answered(future):
            assert answer.error is not None
            assert answer.error.reason == "LEARNER_BEHIND"
            assert "30 s" in answer.error.message
    assert harness.core.snapshot().reward_sum == 8.0
    assert harness.core.snapshot().rows_refused == 6
    harness.segments()
    assert [answer.error for answer in harness.send(*rows)] == [None, None]
    assert harness.core.snapshot().reward_sum == 10.0


def test_a_row_answered_in_time_is_not_mistaken_for_one_that_still_waits(make_harness: Make) -> None:
    harness = make_harness(hand_off=BLOCK)
    one, two = fill(harness)
    early = harness.post(Row(one, 1), Row(two, 1))
    harness.advance(10.0)
    harness.segments()
    harness.settle()
    assert early.done()
    harness.play("full again", 8)
    late = harness.post(Row(one, 2), Row(two, 2))
    harness.advance(20.0)
    assert not late.done()
    harness.advance(10.0)
    assert [answer.error.reason for answer in answered(late) if answer.error] == ["LEARNER_BEHIND"] * 2


def test_the_loop_goes_on_while_replies_are_withheld(make_harness: Make) -> None:
    harness = make_harness(hand_off=BLOCK)
    one, _ = fill(harness)
    waiting = harness.post(Row(one, 1))
    turns = 0

    async def others() -> None:
        nonlocal turns
        for _ in range(50):
            turns += 1
            await asyncio.sleep(0)

    harness.loop.run_until_complete(others())
    assert turns == 50
    assert not waiting.done()


def test_at_the_end_of_the_process_withheld_rows_are_answered(make_harness: Make) -> None:
    harness = make_harness(hand_off=BLOCK)
    one, two = fill(harness)
    waiting = harness.post(Row(one, 1), Row(two, 1))
    harness.core.fail_all(ServerUnavailableError("over", reason="SHUTTING_DOWN"))
    assert [answer.error.reason for answer in answered(waiting) if answer.error] == ["SHUTTING_DOWN"] * 2


@pytest.mark.parametrize("timeout_s", [60.0, 5.0])
def test_withheld_starts_of_a_client_that_never_returns_open_nothing_for_good(make_harness: Make, timeout_s: float) -> None:
    harness = make_harness(hand_off=BLOCK, episodes=EpisodesConfig(max_open=512, episode_idle_timeout_s=timeout_s))
    fill(harness)
    gone = harness.connect("gone")
    harness.post(start("a"), start("b"), owner=gone)
    harness.disconnect(gone)
    harness.advance(10.0)
    harness.segments()
    harness.settle()
    harness.advance(timeout_s)
    assert harness.core.snapshot().episodes_open == 2


def test_a_sample_larger_than_the_hand_off_is_answered_when_that_is_full(make_harness: Callable[..., CoreHarness]) -> None:
    harness = make_harness(hand_off=HandOffConfig(segment_steps=4, capacity_steps=8))
    got: list[SegmentBlock] = []
    harness.loop.call_soon(harness.core.sample, 1_000_000, 3600.0, got.extend)
    harness.play("a", 5)
    harness.settle()
    assert [int(block.lengths.sum()) for block in got] == [5]
