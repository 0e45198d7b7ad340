"""Segments that follow each other in their episode arrive at the learner joined, and only those."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from policyserver.common.flags import StepFlag
from policyserver.server.config.serving_config import HandOffConfig
from policyserver.server.episodes.segments import SegmentBlock, episodes_of
from tests.server.core_harness import CoreHarness, Row, module_of_learner, observation, policy_of, start
from tests.server.episode_player import by_episode, play

Make = Callable[..., CoreHarness]
MAX_SEQ_LEN = 5


def step(harness: CoreHarness, handle: int, numbers: range) -> None:
    for number in numbers:
        harness.one(Row(handle, number, reward=float(number), observation=observation(0, number)))


def test_what_one_sample_takes_in_several_blocks_is_joined(make_harness: Make) -> None:
    harness = make_harness(hand_off=HandOffConfig(segment_steps=4))
    handle = harness.one(start("a", observation(0, 0))).handle
    blocks = []
    for first in (1, 5, 9):
        step(harness, handle, range(first, first + 4))
        blocks += harness.blocks()
    (episode,) = episodes_of(blocks)
    assert len(blocks) == 3
    assert episode.get_rewards().tolist() == list(range(1, 13))
    assert episode.get_observations()[:, 1].tolist() == list(range(13))
    episode.validate()


@pytest.mark.long
def test_a_gap_stays_a_gap(make_harness: Make) -> None:
    harness = make_harness(hand_off=HandOffConfig(segment_steps=2))
    handle = harness.one(start("a", observation(0, 0))).handle
    blocks = []
    for first in (1, 3, 5):
        step(harness, handle, range(first, first + 2))
        blocks += harness.blocks()
    before, _, after = blocks
    episodes = episodes_of([before, after])
    assert [int(episode.t_started) for episode in episodes] == [0, 4]
    assert len({episode.id_ for episode in episodes}) == 2
    assert episodes[1].get_observations(-1, neg_index_as_lookback=True)[1] == 3.0


def test_episodes_that_had_the_same_slot_stay_apart(make_harness: Make) -> None:
    harness = make_harness(hand_off=HandOffConfig(segment_steps=2))
    handles = [harness.play(f"{length}", length) for length in (4, 3, 2)]
    handle = harness.one(start("ends between segments", observation(0, 0))).handle
    step(harness, handle, range(1, 3))
    harness.one(Row(handle, 3, StepFlag.TRUNCATED, 3.0, observation(0, 3)))
    (block,) = harness.blocks()
    assert len({each & 0xFFFF_FFFF for each in (*handles, handle)}) == 1
    assert [len(episode) for episode in episodes_of([block])] == [4, 3, 2, 3]


def test_a_recurrent_nets_segment_has_room_however_little_may_wait(make_harness: Make) -> None:
    hand_off = HandOffConfig(segment_steps=2, capacity_steps=2)
    harness = make_harness(policy_of(module_of_learner("lstm_shared")), hand_off=hand_off)
    handle = harness.one(start("a", observation(0, 0))).handle
    step(harness, handle, range(1, MAX_SEQ_LEN + 1))
    (segment,) = harness.segments()
    assert len(segment) == MAX_SEQ_LEN
    assert harness.core.snapshot().steps_dropped == 0


def test_a_sample_that_wants_more_than_may_wait_is_answered_with_what_surely_can(make_harness: Make) -> None:
    harness = make_harness(policy_of(module_of_learner("lstm_shared")), hand_off=HandOffConfig(segment_steps=2, capacity_steps=7))
    got: list[SegmentBlock] = []
    harness.loop.call_soon(harness.core.sample, 1_000_000, 3600.0, got.extend)
    handle = harness.one(start("a", observation(0, 0))).handle
    step(harness, handle, range(1, MAX_SEQ_LEN + 1))
    harness.settle()
    assert [block.steps for block in got] == [7 - MAX_SEQ_LEN + 1]


@pytest.mark.long
@pytest.mark.parametrize("model", ["mlp", "lstm_shared"])
def test_a_recurrent_net_is_given_a_new_beginning_where_its_sequences_would_not_fit(make_harness: Make, model: str) -> None:
    """Segments that are handed off for their age end anywhere; a learner cuts its sequences from the beginning of what it gets."""
    hand_off = HandOffConfig(segment_steps=20, max_segment_age_s=1e-9)
    harness = make_harness(policy_of(module_of_learner(model)), hand_off=hand_off)
    played, segments = play(harness, np.random.default_rng(0), episodes=10, longest=60, joined=True)
    parts_of = by_episode(segments)
    assert sum(map(len, segments)) == sum(episode.length for episode in played)
    misfits = sum(len(part) % MAX_SEQ_LEN > 0 for parts in parts_of.values() for part in parts[:-1])
    assert misfits > 0, "some segments were handed off for their age"
    handle = harness.one(start("a", observation(0, 0))).handle
    blocks = []
    for first in (1, 4, 7):
        harness.blocks()
        step(harness, handle, range(first, first + 3))
        blocks += harness.blocks()
    lengths = [length for block in blocks for length in block.lengths.tolist()]
    assert [length % MAX_SEQ_LEN for length in lengths] != [0] * len(lengths)
    assert len(episodes_of(blocks)) == (1 if model == "mlp" else len(lengths))
