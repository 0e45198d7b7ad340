"""While learning is paused no question waits and no step reaches the learner; what comes before and after the pause does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from policyserver.common.flags import StepFlag
from policyserver.server.config.serving_config import HandOffConfig
from policyserver.server.episodes.demand import Demand
from tests.server.core_harness import CoreHarness, Row, module_of, observation, policy_of, start

Make = Callable[..., CoreHarness]


def go_on(harness: CoreHarness, handle: int, first: int, last: int) -> None:
    for number in range(first, last + 1):
        harness.one(Row(handle, number, reward=float(number), observation=observation(0, number)))


def pause(harness: CoreHarness, paused: bool = True) -> None:
    harness.on_loop(lambda: harness.core.pause_learning(paused))


def ledger(harness: CoreHarness) -> tuple[int, int, int, int]:
    """Return steps completed, waiting, paused and handed off, of which the first is the sum of the others but for dropped ones."""
    stats = harness.core.snapshot()
    assert stats.steps_completed == stats.steps_waiting + stats.steps_paused + stats.steps_handed_off + stats.steps_dropped
    return stats.steps_completed, stats.steps_waiting, stats.steps_paused, stats.steps_handed_off


@pytest.mark.parametrize("segment_steps", [2, 64])
def test_an_episode_that_goes_on_through_a_pause_gives_what_is_before_and_after_it(make_harness: Make, segment_steps: int) -> None:
    harness = make_harness(hand_off=HandOffConfig(segment_steps=segment_steps))
    handle = harness.one(start("a", observation(0, 0))).handle
    go_on(harness, handle, 1, 5)
    pause(harness)
    assert ledger(harness) == (5, 5, 0, 0)
    go_on(harness, handle, 6, 13)
    assert ledger(harness) == (13, 5, 8, 0)
    pause(harness, False)
    go_on(harness, handle, 14, 16)
    harness.one(Row(handle, 17, StepFlag.TERMINATED, 17.0, observation(0, 17)))
    assert ledger(harness) == (17, 9, 8, 0)
    before, after = harness.segments()
    assert [segment.t_started for segment in (before, after)] == [0, 13]
    assert before.get_rewards().tolist() == [1, 2, 3, 4, 5]
    assert after.get_rewards().tolist() == [14, 15, 16, 17]
    assert after.get_observations()[:, 1].tolist() == [13, 14, 15, 16, 17]
    assert after.is_terminated
    assert not before.is_done
    after.validate()
    assert ledger(harness) == (17, 0, 8, 9)
    assert harness.pages_used == 0


def test_an_episode_that_is_played_within_a_pause_gives_nothing(make_harness: Make) -> None:
    harness = make_harness()
    pause(harness)
    harness.play("a", 7)
    pause(harness, False)
    assert harness.segments() == []
    assert ledger(harness) == (7, 0, 7, 0)


def test_episodes_that_follow_each_other_in_a_slot_stay_apart_though_the_pause_ends_at_the_step_at_which_it_began(
    make_harness: Make,
) -> None:
    harness = make_harness()
    handle = harness.one(start("a", observation(1, 0))).handle
    for number in range(1, 4):
        harness.one(Row(handle, number, reward=1.0, observation=observation(1, number)))
    pause(harness)
    harness.one(Row(handle, 4, StepFlag.TERMINATED, 1.0, observation(1, 4)))
    other = harness.one(start("b", observation(2, 0))).handle
    for number in range(1, 4):
        harness.one(Row(other, number, reward=2.0, observation=observation(2, number)))
    pause(harness, False)
    harness.one(Row(other, 4, reward=2.0, observation=observation(2, 4)))
    harness.one(Row(other, 5, StepFlag.TERMINATED, 2.0, observation(2, 5)))
    before, after = harness.segments()
    assert [(int(each.t_started), each.is_terminated) for each in (before, after)] == [(0, False), (3, True)]
    assert (before.get_rewards().tolist(), after.get_rewards().tolist()) == ([1, 1, 1], [2, 2])
    assert before.get_observations()[-1, :2].tolist() == [1, 3], "what its own last action led to"
    assert after.get_observations()[:, 0].tolist() == [2, 2, 2]


def test_pausing_twice_or_going_on_twice_is_doing_it_once(make_harness: Make) -> None:
    harness = make_harness()
    handle = harness.one(start("a", observation(0, 0))).handle
    go_on(harness, handle, 1, 3)
    for _ in range(2):
        pause(harness)
    go_on(harness, handle, 4, 5)
    for _ in range(2):
        pause(harness, False)
    assert ledger(harness) == (5, 3, 2, 0)


def test_no_question_waits_while_learning_is_paused_and_they_wait_again_after_it(make_harness: Make) -> None:
    harness = make_harness(demand=Demand(fragment_steps=2))
    handle = harness.one(start("a", observation(0, 0))).handle
    go_on(harness, handle, 1, 1)
    row = Row(handle, 2, reward=1.0, observation=observation(0, 2))
    assert harness.refusal(row).reason == "LEARNER_BEHIND"
    pause(harness)
    harness.one(row)
    go_on(harness, handle, 3, 40)
    pause(harness, False)
    assert harness.refusal(Row(handle, 41, reward=1.0, observation=observation(0, 41))).reason == "LEARNER_BEHIND"
    assert harness.core.snapshot().steps_paused == 38


def test_a_request_of_the_learner_gets_nothing_that_was_played_within_a_pause(make_harness: Make) -> None:
    harness = make_harness(demand=Demand(fragment_steps=4))
    got: list[int] = []
    handle = harness.one(start("a", observation(0, 0))).handle
    go_on(harness, handle, 1, 2)
    harness.on_loop(lambda: harness.core.sample(4, 2.0, lambda blocks: got.append(sum(block.steps for block in blocks))))
    pause(harness)
    go_on(harness, handle, 3, 9)
    harness.advance(3.0)
    assert got == [0]
    pause(harness, False)
    go_on(harness, handle, 10, 10)
    assert harness.refusal(Row(handle, 11, reward=1.0, observation=observation(0, 11))).reason == "LEARNER_BEHIND", "that makes four"
    harness.on_loop(lambda: harness.core.sample(4, 2.0, lambda blocks: got.append(sum(block.steps for block in blocks))))
    harness.advance(3.0)
    assert got == [0, 4], "two from before and two from after it"


def test_whole_episodes_of_which_a_part_was_played_within_a_pause_are_let_go_whole(make_harness: Make) -> None:
    harness = make_harness(
        hand_off=HandOffConfig(segment_steps=2), demand=Demand(fragment_steps=1000, whole_episodes=True, batches_ahead=100.0)
    )
    handle = harness.one(start("a", observation(0, 0))).handle
    go_on(harness, handle, 1, 5)
    pause(harness)
    go_on(harness, handle, 6, 6)
    pause(harness, False)
    go_on(harness, handle, 7, 11)
    harness.one(Row(handle, 12, StepFlag.TERMINATED, 1.0, observation(0, 12)))
    harness.play("b", 3)
    (whole,) = harness.segments()
    assert len(whole) == 3
    stats = harness.core.snapshot()
    assert (stats.steps_completed, stats.steps_paused, stats.steps_handed_off, stats.steps_dropped) == (15, 12, 3, 0)
    assert harness.pages_used == 0


@pytest.mark.long
@pytest.mark.parametrize("model", ["lstm_shared", "lstm_apart"])
def test_a_recurrent_learner_has_the_state_from_which_the_first_step_after_a_pause_was_decided(make_harness: Make, model: str) -> None:
    def state_before_the_last_segment(pauses: bool) -> list[np.ndarray]:
        harness = make_harness(policy_of(module_of(model)), hand_off=HandOffConfig(segment_steps=5))
        handle = harness.one(start("a", observation(0, 0))).handle
        go_on(harness, handle, 1, 2)
        if pauses:
            pause(harness)
        go_on(harness, handle, 3, 5)
        if pauses:
            pause(harness, False)
        harness.one(Row(handle, 6, StepFlag.TERMINATED, 6.0, observation(0, 6)))
        (block,) = harness.blocks()
        assert block.t_started.tolist() == [0, 5]
        return [column[-1, 0] for column in block.states]

    torch.manual_seed(0)
    with_pause = state_before_the_last_segment(True)
    torch.manual_seed(0)
    for state, same in zip(with_pause, state_before_the_last_segment(False), strict=True):
        assert np.abs(state).max() > 0
        np.testing.assert_array_equal(state, same)
