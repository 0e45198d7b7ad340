"""While the daemon is silent answers are stale, no question waits, no step is handed off, and each step is in one counter."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from policyserver.common.flags import StepFlag
from policyserver.server.config.serving_config import HandOffConfig
from policyserver.server.episodes.demand import Demand
from tests.server.core_harness import CoreHarness, Row, observation, start

Make = Callable[..., CoreHarness]


def go_on(harness: CoreHarness, handle: int, first: int, last: int) -> None:
    for number in range(first, last + 1):
        harness.one(Row(handle, number, reward=float(number), observation=observation(0, number)))


def cut(harness: CoreHarness, is_silent: bool = True) -> None:
    harness.on_loop(lambda: harness.core.absence.note_silence(is_silent))


def ask(harness: CoreHarness) -> None:
    """Let the learner ask for more steps than there are, until it has waited for long enough."""
    harness.on_loop(lambda: harness.core.sample(10**6, 0.01, lambda blocks: None))
    harness.advance(0.1)


def ledger(harness: CoreHarness) -> tuple[int, int, int, int]:
    """Return steps waiting, paused, cut off and handed off, which are all that were completed."""
    stats = harness.core.snapshot()
    counted = (stats.steps_waiting, stats.steps_paused, stats.steps_cut_off, stats.steps_handed_off)
    assert stats.steps_completed == sum(counted) + stats.steps_dropped
    return counted


def is_stale(harness: CoreHarness, row: Row) -> bool:
    return harness.loop.run_until_complete(harness.post(row)).is_stale


def test_what_is_before_and_after_a_cut_is_handed_off_and_what_is_within_is_counted(make_harness: Make) -> None:
    harness = make_harness()
    handle = harness.one(start("a", observation(0, 0))).handle
    go_on(harness, handle, 1, 5)
    for _ in range(2):
        cut(harness)
    go_on(harness, handle, 6, 13)
    assert ledger(harness) == (5, 0, 8, 0)
    for _ in range(2):
        cut(harness, False)
    ask(harness)
    go_on(harness, handle, 14, 16)
    harness.one(Row(handle, 17, StepFlag.TERMINATED, 17.0, observation(0, 17)))
    before, after = harness.segments()
    assert [(segment.t_started, len(segment)) for segment in (before, after)] == [(0, 5), (13, 4)]
    assert ledger(harness) == (0, 0, 8, 9)
    assert harness.pages_used == 0


def test_answers_say_that_they_are_stale(make_harness: Make) -> None:
    harness = make_harness()
    handle = harness.one(start("a", observation(0, 0))).handle
    assert not is_stale(harness, Row(handle, 1, reward=1.0, observation=observation(0, 1)))
    cut(harness)
    assert is_stale(harness, Row(handle, 2, reward=1.0, observation=observation(0, 2)))
    assert harness.core.snapshot().daemon_silent_s > 0.0
    cut(harness, False)
    assert not is_stale(harness, Row(handle, 3, reward=1.0, observation=observation(0, 3)))
    assert harness.core.snapshot().daemon_silent_s == 0.0


def test_each_step_has_the_reason_that_there_was_when_it_was_recorded(make_harness: Make) -> None:
    """Learning is paused, then the daemon is cut off, comes back, and learning goes on."""
    harness = make_harness()
    handle = harness.one(start("a", observation(0, 0))).handle
    orders: list[Callable[[], None]] = [
        lambda: harness.core.pause_learning(True),
        lambda: harness.core.absence.note_silence(True),
        lambda: harness.core.absence.note_silence(False),
        lambda: harness.core.sample(10**6, 0.0, lambda blocks: None),
        lambda: harness.core.pause_learning(False),
    ]
    ends = [2, 5, 9, 11, 14, 20]
    go_on(harness, handle, 1, ends[0])
    for order, (before, end) in zip(orders, pairwise(ends), strict=True):
        harness.on_loop(order)
        go_on(harness, handle, before + 1, end)
    assert ledger(harness) == (2 + 6, 3 + 3, 4 + 2, 0)


def test_a_request_is_answered_with_nothing_until_the_daemon_is_back(make_harness: Make) -> None:
    harness = make_harness(demand=Demand(fragment_steps=4))
    got: list[int] = []

    def ask() -> None:
        harness.on_loop(lambda: harness.core.sample(4, 2.0, lambda blocks: got.append(sum(block.steps for block in blocks)), or_fewer=True))

    handle = harness.one(start("a", observation(0, 0))).handle
    go_on(harness, handle, 1, 3)
    ask()
    cut(harness)
    assert got == [0], "at once: it would go into the cut"
    go_on(harness, handle, 4, 12)
    ask()
    harness.advance(3.0)
    assert got == [0, 0]
    ask()
    cut(harness, False)
    harness.advance(3.0)
    assert got == [0, 0, 3]


def test_questions_that_wait_for_the_learner_are_answered_at_a_cut(make_harness: Make) -> None:
    harness = make_harness(demand=Demand(fragment_steps=2))
    handle = harness.one(start("a", observation(0, 0))).handle
    go_on(harness, handle, 1, 1)
    row = Row(handle, 2, reward=1.0, observation=observation(0, 2))
    assert harness.refusal(row).reason == "LEARNER_BEHIND"
    cut(harness)
    harness.one(row)
    go_on(harness, handle, 3, 40)
    cut(harness, False)
    go_on(harness, handle, 41, 60)
    assert ledger(harness) == (2, 0, 58, 0), "no learner has asked for them: it would be through with so many only after minutes"
    harness.on_loop(lambda: harness.core.sample(2, 1.0, lambda blocks: None))
    harness.settle()
    assert harness.refusal(Row(handle, 61, reward=1.0, observation=observation(0, 61))).reason == "LEARNER_BEHIND", "it has asked again"


@pytest.mark.parametrize("ends_within", [True, False])
def test_whole_episodes_of_which_a_part_was_played_within_a_cut_are_let_go_whole(make_harness: Make, ends_within: bool) -> None:
    demand = Demand(fragment_steps=1000, whole_episodes=True, batches_ahead=100.0)
    harness = make_harness(hand_off=HandOffConfig(segment_steps=2), demand=demand)
    handle = harness.one(start("a", observation(0, 0))).handle
    go_on(harness, handle, 1, 5)
    cut(harness)
    go_on(harness, handle, 6, 6)
    if not ends_within:
        cut(harness, False)
    go_on(harness, handle, 7, 11)
    harness.one(Row(handle, 12, StepFlag.TERMINATED, 1.0, observation(0, 12)))
    cut(harness, False)
    ask(harness)
    harness.play("b", 3)
    (whole,) = harness.segments()
    assert len(whole) == 3
    assert ledger(harness) == (0, 0, 12, 3)


def test_an_episode_that_ends_within_a_cut_is_not_said_to_be_trained_on(make_harness: Make) -> None:
    harness = make_harness()
    cut(harness)
    harness.play("a", 2)
    cut(harness, False)
    ask(harness)
    harness.play("b", 2)
    ended, _ = harness.core.ended.take()
    assert [(each.episode, each.trained) for each in ended] == [("a", False), ("b", True)]
