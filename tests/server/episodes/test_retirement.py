"""A core that is to go: first it starts nothing new, then it answers nothing more, and all its steps are there to be taken."""

from __future__ import annotations

from policyserver.common.flags import StepFlag
from policyserver.server.episodes.ending_error import ending_error
from tests.server.core_harness import CoreHarness, Row, start


def test_a_retired_core_goes_on_with_what_is_open_and_hands_off_as_before(harness: CoreHarness) -> None:
    handle = harness.one(start("a")).handle
    harness.core.retire()
    assert harness.refusal(start("b")).reason == "SHUTTING_DOWN"
    harness.one(Row(handle, 1, StepFlag.TERMINATED, 1.0))
    assert len(harness.segments()) == 1
    assert harness.core.snapshot().episodes_open == 0


def test_a_core_that_leaves_answers_nothing_and_keeps_each_step_for_the_learner(harness: CoreHarness) -> None:
    handles = [harness.one(start(name)).handle for name in ("a", "b")]
    for handle in handles:
        harness.one(Row(handle, 1, reward=1.0))
        harness.one(Row(handle, 2, reward=1.0))
    harness.on_loop(harness.core.leave)
    assert harness.core.snapshot().episodes_open == 0
    assert harness.core.ended.waiting == 2
    assert [error.reason for error in (harness.refusal(Row(handles[0], 3)), harness.refusal(start("c")))] == ["SHUTTING_DOWN"] * 2
    segments = harness.segments()
    assert sorted(len(segment) for segment in segments) == [2, 2]
    assert all(segment.is_truncated for segment in segments)
    assert harness.core.snapshot().steps_waiting == 0
    ended, missing = harness.core.ended.take()
    assert [(each.ended, each.length) for each in ended] == [("lost", 2)] * 2
    assert missing == harness.core.ended.waiting == 0


def test_a_core_that_is_told_to_stay_starts_episodes_again_unless_it_leaves(harness: CoreHarness) -> None:
    harness.core.retire()
    harness.core.retire(stays=True)
    harness.one(start("a"))
    harness.core.hold_starts(ending_error(is_final=False))
    harness.core.retire()
    harness.core.hold_starts(None)
    assert harness.refusal(start("b")).reason == "SHUTTING_DOWN", "the daemon is back, and has this one replaced"
    harness.on_loop(harness.core.leave)
    harness.core.retire(stays=True)
    assert harness.refusal(start("c")).reason == "SHUTTING_DOWN"
