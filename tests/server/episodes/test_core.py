"""What the episode core promises about one row: applied once, in order, as a whole, or refused without a trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from policyserver.common.errors import InvalidInputError
from policyserver.common.flags import StepFlag
from policyserver.server.config.serving_config import EpisodesConfig
from policyserver.server.episodes.received_rows import ReceivedRows, Replies
from tests.server.core_harness import Answer, CoreHarness, Row, observation, start

GIVEN, OVERRIDE = StepFlag.ACTION_GIVEN, StepFlag.OVERRIDE


def same(first: Answer, second: Answer) -> bool:
    return (first.handle, first.action, first.log_prob) == (second.handle, second.action, second.log_prob)


def test_the_same_row_again_gets_the_same_action_and_is_counted_once(harness: CoreHarness) -> None:
    handle = harness.one(start("a")).handle
    row = Row(handle, 1, reward=2.5, observation=observation(1))
    first = harness.one(row)
    assert all(same(first, harness.one(row)) for _ in range(20))
    statistics = harness.core.snapshot()
    assert (statistics.reward_sum, statistics.steps_completed, statistics.actions, statistics.rows_repeated) == (2.5, 1, 2, 20)
    harness.one(Row(handle, 2, StepFlag.TERMINATED, 1.0))
    (segment,) = harness.segments()
    assert segment.get_rewards().tolist() == [2.5, 1.0]


def test_rows_that_are_refused_for_one_reason_have_an_error_each() -> None:
    replies = Replies.empty(2, [])
    replies.refusal = InvalidInputError("observations: expected 4 numbers", field="observations")
    first, second = replies.error_of(0), replies.error_of(1)
    assert first is not None
    assert second is not None
    with pytest.raises(InvalidInputError):
        raise first
    first.field = "observation"
    assert (second.field, second.__traceback__, str(second)) == ("observations", None, str(first))


def test_a_start_row_may_come_again_until_the_next_number(harness: CoreHarness) -> None:
    first = harness.one(start("a", observation(1)))
    assert same(first, harness.one(start("a", observation(1))))
    assert harness.core.snapshot().episodes_open == 1
    assert harness.refusal(start("a", observation(2))).reason == "EPISODE_DUPLICATE"
    harness.one(Row(first.handle, 1))
    assert harness.refusal(start("a", observation(1))).reason == "EPISODE_DUPLICATE"
    assert harness.core.snapshot().episodes_started == 1


def test_a_start_row_twice_in_one_turn_starts_one_episode(harness: CoreHarness) -> None:
    (one,), (two,) = harness.send_messages([start("a", observation(1))], [start("a", observation(1))])
    assert same(one, two)
    assert one.error is None
    assert harness.core.snapshot().episodes_started == 1


def test_an_end_may_come_again_and_ends_once(harness: CoreHarness) -> None:
    handle = harness.one(start("a")).handle
    end = Row(handle, 1, StepFlag.TERMINATED, 1.0, observation(1))
    assert [harness.one(end).handle for _ in range(3)] == [handle] * 3
    statistics = harness.core.snapshot()
    assert (statistics.episodes_finished, statistics.reward_sum, statistics.episodes_open) == (1, 1.0, 0)
    other = harness.refusal(Row(handle, 1, StepFlag.TERMINATED, 2.0, observation(1)))
    assert other.reason == "EPISODE_FINISHED"
    assert len(harness.segments()) == 1


def test_an_end_with_the_start_leaves_nothing_to_learn_from(harness: CoreHarness) -> None:
    row = start("a", flags=StepFlag.TERMINATED, info={"left": "behind"})
    assert harness.one(row).handle == harness.one(row).handle
    assert harness.core.snapshot().episodes_finished == 1
    assert harness.segments() == []
    harness.play("b", 2)
    (segment,) = harness.segments()
    assert list(segment.get_infos()) == [{}, {}, {}]


def test_the_same_number_with_another_content_is_a_conflict(harness: CoreHarness) -> None:
    handle = harness.one(start("a")).handle
    row = Row(handle, 1, reward=1.0, observation=observation(1))
    first = harness.one(row)
    for other in (
        Row(handle, 1, reward=1.5, observation=observation(1)),
        Row(handle, 1, reward=1.0, observation=observation(1.001)),
        Row(handle, 1, GIVEN, 1.0, observation(1), 2),
        Row(handle, 1, StepFlag.TERMINATED, 1.0, observation(1)),
    ):
        error = harness.refusal(other)
        assert (error.reason, error.field) == ("SEQUENCE_CONFLICT", "sequences")
    assert same(first, harness.one(row))
    assert harness.core.snapshot().reward_sum == 1.0


@pytest.mark.parametrize("number", [0, 3, 7])
def test_a_number_out_of_order_is_refused_and_changes_nothing(harness: CoreHarness, number: int) -> None:
    handle = harness.one(start("a")).handle
    harness.one(Row(handle, 1))
    error = harness.refusal(Row(handle, number, reward=9.0))
    assert error.reason == "SEQUENCE_GAP"
    assert "expected 2" in error.message
    assert f"received {number}" in error.message
    harness.one(Row(handle, 2, StepFlag.TERMINATED, 1.0))
    assert harness.core.snapshot().reward_sum == 1.0


def test_two_numbers_of_one_episode_in_one_message_are_answered_in_order(harness: CoreHarness) -> None:
    handle = harness.one(start("a")).handle
    rows = [Row(handle, 2, reward=2.0, observation=observation(2)), Row(handle, 1, reward=1.0, observation=observation(1))]
    answers = harness.send(*rows, rows[0])
    assert [answer.error for answer in answers] == [None] * 3
    assert same(answers[0], answers[2])
    harness.one(Row(handle, 3, StepFlag.TERMINATED, 3.0))
    (segment,) = harness.segments()
    assert segment.get_rewards().tolist() == [1.0, 2.0, 3.0]
    assert segment.get_observations()[:, 0].tolist() == [0.0, 1.0, 2.0, 0.0]
    assert segment.get_actions().tolist()[1:] == [answers[1].action, answers[0].action]


def test_a_given_action_is_recorded_with_its_own_log_prob(harness: CoreHarness) -> None:
    handle = harness.one(start("a", observation(3), flags=GIVEN, action=2)).handle
    answer = harness.one(Row(handle, 1, GIVEN, 0.0, observation(3), 1))
    harness.one(Row(handle, 2, StepFlag.TERMINATED))
    (segment,) = harness.segments()
    logits = segment.get_extra_model_outputs("action_dist_inputs")
    expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert segment.get_actions().tolist() == [2, 1]
    np.testing.assert_allclose(segment.get_extra_model_outputs("action_logp"), [expected[0, 2], expected[1, 1]], atol=1e-6)
    assert answer.action == 1
    assert answer.log_prob == pytest.approx(expected[1, 1], abs=1e-6)


def test_an_override_replaces_the_pending_action_and_its_log_prob(harness: CoreHarness) -> None:
    given_out = harness.one(start("a", observation(3)))
    taken = (int(given_out.action) + 1) % 3
    override = Row(given_out.handle, 0, GIVEN | OVERRIDE, 0.0, observation(3), taken)
    replaced = harness.one(override)
    assert replaced.action == taken
    assert replaced.log_prob != given_out.log_prob
    assert same(replaced, harness.one(override)), "a repeated override changes nothing"
    harness.one(Row(given_out.handle, 1, StepFlag.TERMINATED, 1.0))
    (segment,) = harness.segments()
    assert segment.get_actions().tolist() == [taken]
    logits = segment.get_extra_model_outputs("action_dist_inputs")[0]
    expected = logits[taken] - np.log(np.exp(logits).sum())
    assert segment.get_extra_model_outputs("action_logp")[0] == pytest.approx(expected, abs=1e-6)
    assert replaced.log_prob == pytest.approx(expected, abs=1e-6)
    assert harness.core.snapshot().steps_completed == 1


def test_an_override_of_a_number_that_was_never_seen_is_a_given_action(harness: CoreHarness) -> None:
    handle = harness.one(start("a", flags=GIVEN | OVERRIDE, action=1)).handle
    answer = harness.one(Row(handle, 1, GIVEN | OVERRIDE, 1.0, action=2))
    assert answer.action == 2
    assert same(answer, harness.one(Row(handle, 1, GIVEN, 1.0, action=2))), "the same content, whatever the reason for it"


def test_an_override_of_an_older_number_or_out_of_the_space_is_refused(harness: CoreHarness) -> None:
    first = harness.one(start("a"))
    second = harness.one(Row(first.handle, 1))
    assert harness.refusal(Row(first.handle, 0, GIVEN | OVERRIDE, 0.0, action=1)).reason == "SEQUENCE_GAP"
    assert harness.refusal(Row(first.handle, 1, GIVEN | OVERRIDE, 0.0, action=3)).reason == "BAD_ACTION"
    assert same(second, harness.one(Row(first.handle, 1)))


def test_unknown_foreign_and_stale_handles_are_told_apart_from_finished_ones(harness: CoreHarness) -> None:
    stranger = harness.connect("stranger")
    handle = harness.one(start("a")).handle
    for unknown, client in ((0, None), (handle + 1, None), (handle + (1 << 32), None), (2**63, None), (handle, stranger)):
        error = harness.refusal(Row(unknown, 1), client)
        assert (error.reason, error.field) == ("EPISODE_UNKNOWN", "handles")
    harness.one(Row(handle, 1, StepFlag.TERMINATED))
    assert harness.refusal(Row(handle, 2)).reason == "EPISODE_FINISHED"
    assert harness.refusal(Row(handle, 2), stranger).reason == "EPISODE_UNKNOWN"
    assert harness.refusal(start("a", observation(1))).reason == "EPISODE_FINISHED"
    again = harness.one(start("b")).handle
    assert again & 0xFFFF_FFFF == handle & 0xFFFF_FFFF, "the slot is used again"
    assert harness.refusal(Row(handle, 1)).reason == "EPISODE_FINISHED"
    assert harness.one(start("a"), stranger).handle, "another client's ids are its own"


@pytest.mark.parametrize(
    ("bad", "reason", "field", "words"),
    [
        ({"observation": observation(float("nan"))}, "BAD_OBSERVATION", "observations[0]", "received nan at [0]"),
        ({"observation": observation(0, float("inf"))}, "BAD_OBSERVATION", "observations[0]", "received inf at [1]"),
        ({"observation": observation(0, 0, 100.5)}, "BAD_OBSERVATION", "observations[0]", "from -100.0 to 100.0, received 100.5 at [2]"),
        ({"flags": GIVEN, "action": 3}, "BAD_ACTION", "actions[0]", "from 0 to 2, received 3"),
        ({"flags": GIVEN, "action": -1}, "BAD_ACTION", "actions[0]", "received -1"),
        ({"reward": float("nan")}, "BAD_REWARD", "rewards", "expected a finite number of at most 3.4e+38, received nan"),
        ({"reward": -1e39}, "BAD_REWARD", "rewards", "expected a finite number of at most 3.4e+38, received -1e+39"),
        ({"flags": StepFlag.TERMINATED | StepFlag.TRUNCATED}, "BAD_MESSAGE", "flags", "received 76 (TERMINATED, TRUNCATED, NO_WAIT)"),
        ({"flags": OVERRIDE}, "BAD_MESSAGE", "flags", "OVERRIDE"),
        ({"flags": StepFlag.TRAINING_DISABLED}, "BAD_MESSAGE", "flags", "TRAINING_DISABLED"),
        ({"flags": 128}, "BAD_MESSAGE", "flags", "received 192 (NO_WAIT, and 128, which is no flag)"),
        ({"flags": 128 | GIVEN, "action": 1}, "BAD_MESSAGE", "flags", "received 194 (ACTION_GIVEN, NO_WAIT, and 128, which is no flag)"),
    ],
)
def test_only_the_bad_row_is_refused_and_the_good_one_in_its_place_works(
    harness: CoreHarness, bad: dict[str, Any], reason: str, field: str, words: str
) -> None:
    one, other = (answer.handle for answer in harness.send(start("one"), start("other")))
    spoiled = Row(**{"handle": one, "sequence": 1, "reward": 1.0, "observation": observation(1), **bad})
    refused, served = harness.send(spoiled, Row(other, 1, reward=1.0))
    assert served.error is None
    error = refused.error
    assert error is not None
    assert (error.reason, error.field) == (reason, field)
    assert words in error.message
    assert harness.core.snapshot().reward_sum == 1.0
    harness.send(Row(one, 1, reward=1.0, observation=observation(1)), Row(other, 2, StepFlag.TERMINATED))
    harness.one(Row(one, 2, StepFlag.TERMINATED, 1.0))
    assert sorted(sum(segment.get_rewards()) for segment in harness.segments()) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"observation": observation(float("nan"))}, "BAD_OBSERVATION"),
        ({"reward": 1.0}, "BAD_REWARD"),
        ({"sequence": 1}, "BAD_MESSAGE"),
    ],
)
def test_a_refused_start_opens_nothing(harness: CoreHarness, bad: dict[str, Any], reason: str) -> None:
    assert harness.refusal(Row(flags=StepFlag.START, episode_id="a", **bad)).reason == reason
    assert (harness.core.snapshot().episodes_open, harness.core.snapshot().episodes_started) == (0, 0)
    harness.one(start("a"))


def test_a_start_beyond_the_limit_is_refused_until_an_episode_ends(make_harness: Callable[..., CoreHarness]) -> None:
    harness = make_harness(episodes=EpisodesConfig(max_open=2))
    one, two, three = harness.send(start("one"), start("two"), start("three"))
    assert one.error is None
    assert two.error is None
    assert three.error is not None
    assert three.error.reason == "TOO_MANY_EPISODES"
    assert "at most 2" in three.error.message
    harness.one(Row(one.handle, 1, StepFlag.TERMINATED))
    harness.one(start("three"))


def test_a_start_that_is_refused_takes_no_room_from_another(make_harness: Callable[..., CoreHarness]) -> None:
    harness = make_harness(episodes=EpisodesConfig(max_open=1))
    bad, good = harness.send(start("bad", observation(float("nan"))), start("good"))
    assert bad.error is not None
    assert bad.error.reason == "BAD_OBSERVATION"
    assert good.error is None


def test_a_start_twice_in_one_turn_takes_the_room_of_one(make_harness: Callable[..., CoreHarness]) -> None:
    harness = make_harness(episodes=EpisodesConfig(max_open=1))
    (one,), (two,) = harness.send_messages([start("a")], [start("a")])
    assert one.error is None
    assert same(one, two)


def test_while_draining_open_episodes_go_on_and_new_ones_are_refused(harness: CoreHarness) -> None:
    handle = harness.one(start("a")).handle
    harness.core.drain()
    assert harness.refusal(start("b")).reason == "SHUTTING_DOWN"
    assert harness.one(start("a")).handle == handle
    harness.one(Row(handle, 1, StepFlag.TERMINATED, 1.0))
    assert len(harness.segments()) == 1


def test_an_episode_with_training_disabled_is_served_and_never_handed_off(harness: CoreHarness) -> None:
    handle = harness.one(start("a", flags=StepFlag.TRAINING_DISABLED)).handle
    answer = harness.one(Row(handle, 1, GIVEN, 1.0, action=1))
    overridden = harness.one(Row(handle, 1, GIVEN | OVERRIDE, 1.0, action=2))
    assert (answer.action, overridden.action) == (1, 2)
    harness.one(Row(handle, 2, StepFlag.TERMINATED, 1.0))
    harness.play("b", 3)
    statistics = harness.core.snapshot()
    assert (statistics.steps_completed, statistics.steps_untrained, statistics.reward_sum) == (5, 2, 5.0)
    assert [len(segment) for segment in harness.segments()] == [3]
    assert len(statistics.unreported) == 1
    assert harness.core.snapshot().steps_handed_off == 3


def test_trained_and_untrained_episodes_share_a_batch(harness: CoreHarness) -> None:
    one, two = harness.send(start("a", observation(1)), start("b", observation(2), flags=StepFlag.TRAINING_DISABLED))
    harness.send(Row(one.handle, 1, observation=observation(3)), Row(two.handle, 1, observation=observation(4)))
    harness.send(Row(one.handle, 2, StepFlag.TRUNCATED), Row(two.handle, 2, StepFlag.TRUNCATED))
    (segment,) = harness.segments()
    assert segment.get_observations()[:, 0].tolist() == [1.0, 3.0, 0.0]
    assert segment.is_truncated


def test_rows_of_one_turn_share_a_forward_pass(harness: CoreHarness) -> None:
    harness.send_messages(*[[start(f"{message}-{row}") for row in range(3)] for message in range(4)])
    assert harness.core.snapshot().batches == 1
    assert harness.core.snapshot().episodes_open == 12


def test_an_empty_message_is_answered(harness: CoreHarness) -> None:
    def empty(dtype: Any) -> Any:
        return np.zeros(0, dtype)

    rows = ReceivedRows(empty(np.uint64), empty(np.uint32), empty(np.uint8), empty(np.float64), [np.zeros((0, 10), np.float32)], [])

    async def submitted() -> Any:
        return await harness.core.submit(rows, harness.client)

    assert len(harness.loop.run_until_complete(submitted()).handles) == 0


def test_infos_belong_to_their_step_alone(harness: CoreHarness) -> None:
    handle = harness.one(start("a", info={"n": 0})).handle
    harness.one(Row(handle, 1, info={"n": 1}))
    harness.one(Row(handle, 2))
    harness.one(Row(handle, 3, StepFlag.TERMINATED, info={"n": 3}))
    (segment,) = harness.segments()
    assert list(segment.get_infos()) == [{"n": 0}, {"n": 1}, {}, {"n": 3}]
