"""A learner that has enough from all serving actors together ends the wait of one: it gives what it has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from policyserver.server.episodes.demand import Demand
from policyserver.server.episodes.segments import SegmentBlock
from tests.server.core_harness import CoreHarness, Row, observation, start

WANTED, EPISODES = 64, 4
CALL_NO = 5

Make = Callable[..., CoreHarness]


@pytest.fixture
def harness(make_harness: Make) -> CoreHarness:
    return make_harness(demand=Demand(fragment_steps=WANTED))


class Asked:
    """What a request was answered with."""

    def __init__(self, harness: CoreHarness, call_no: int = CALL_NO) -> None:
        self.answers: list[list[SegmentBlock]] = []
        harness.on_loop(lambda: harness.core.sample(WANTED, 3600.0, self.answers.append, call_no=call_no))

    @property
    def steps(self) -> list[int]:
        return [sum(block.steps for block in blocks) for blocks in self.answers]


def play(harness: CoreHarness, turns: int) -> None:
    """Begin episodes and make some steps in each."""
    rows = [start(f"{index}", observation(index, 0)) for index in range(EPISODES)]
    answers = harness.send(*rows)
    for sequence in range(1, turns + 1):
        rows = [Row(answer.handle, sequence, 0, 1.0, observation(index, sequence)) for index, answer in enumerate(answers)]
        answers = harness.send(*rows)
        assert [answer.error for answer in answers] == [None] * EPISODES


def full(harness: CoreHarness, call_no: int = CALL_NO) -> None:
    harness.on_loop(lambda: harness.core.requests.call_is_full(call_no))


def test_it_gives_all_that_it_has_though_it_is_less_than_was_wanted(harness: CoreHarness) -> None:
    asked = Asked(harness)
    play(harness, 3)
    assert asked.steps == []
    full(harness)
    harness.loop.run_until_complete(asyncio.sleep(1.0))  # for steps that clients are making
    assert asked.steps == [3 * EPISODES]
    assert not harness.core.room.is_open, "clients wait for the learner"


def test_it_gives_nothing_at_once_if_it_has_nothing(harness: CoreHarness) -> None:
    asked = Asked(harness)
    assert harness.core.room.is_open
    full(harness)
    assert asked.steps == [0]
    assert not harness.core.room.is_open, "clients wait for the learner"


def test_what_was_made_for_a_call_is_what_was_handed_off_for_it_and_what_is_ready(harness: CoreHarness) -> None:
    requests = harness.core.requests
    asked = Asked(harness)
    play(harness, 2)
    assert requests.made_for(CALL_NO) == (0, 2 * EPISODES)
    full(harness)
    harness.loop.run_until_complete(asyncio.sleep(1.0))
    assert asked.steps == [2 * EPISODES]
    assert requests.made_for(CALL_NO) == (2 * EPISODES, 0)
    assert requests.made_for(CALL_NO + 1) == (0, 0)


def test_more_of_a_batch_opens_no_room_for_others(harness: CoreHarness) -> None:
    harness.on_loop(lambda: harness.core.room.close(0))
    answers: list[list[SegmentBlock]] = []
    harness.on_loop(lambda: harness.core.sample(EPISODES, 3600.0, answers.append, call_no=CALL_NO))
    assert harness.core.room.is_open_after(EPISODES - 1)
    assert not harness.core.room.is_open_after(EPISODES)


def test_it_is_remembered_for_a_request_of_that_call_that_comes_later_and_for_no_other(harness: CoreHarness) -> None:
    full(harness)
    harness.on_loop(lambda: harness.core.room.close(0))
    late = Asked(harness)
    assert late.steps == [0]
    assert not harness.core.room.is_open
    of_next = Asked(harness, CALL_NO + 1)
    of_rllib = Asked(harness, 0)
    assert (of_next.steps, of_rllib.steps) == ([], [])
    full(harness)
    assert of_rllib.steps == [], "RLlib's own calls have no number"
