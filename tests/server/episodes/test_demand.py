"""What the learner wants of one actor may change while it serves: its part of a batch, when actors come or go."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from policyserver.common.flags import StepFlag
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig
from policyserver.server.episodes.demand import Demand
from tests.server.core_harness import CoreHarness, Row, start

Make = Callable[..., CoreHarness]


def test_of_a_demand_that_does_not_fit_there_is_what_fits() -> None:
    demand = Demand(fragment_steps=100, batches_ahead=2.0, most_fragment_steps=400)
    assert demand.within(None) == demand
    assert (demand.capacity_steps, demand.most_capacity_steps) == (300, 1200)
    less = demand.within(150)
    assert (less.fragment_steps, less.batches_ahead, less.most_fragment_steps) == (100, 1.5, 150)
    assert Demand(fragment_steps=100).most_capacity_steps == 100


def play(harness: CoreHarness, count: int, begin: int = 0) -> int:
    """Play episodes of one step while there is room; return how many."""
    for number in range(count):
        if not harness.core.room.is_open:
            return number
        handle = harness.one(start(f"{begin + number}")).handle
        harness.one(Row(handle, 1, StepFlag.TERMINATED, 1.0))
    return count


def test_a_larger_part_of_a_batch_fits_however_short_the_episodes_are(make_harness: Make) -> None:
    demand = Demand(fragment_steps=20, most_fragment_steps=40)
    harness = make_harness(demand=demand, episodes=EpisodesConfig(max_open=4))
    assert play(harness, 100) == 20
    assert sum(len(each) for each in harness.segments()) == 20
    harness.on_loop(lambda: harness.core.want(Demand(fragment_steps=40, most_fragment_steps=40)))
    harness.on_loop(lambda: harness.core.serve_weights(1))
    assert play(harness, 100, 100) == 40
    assert harness.core.snapshot().steps_dropped == 0
    harness.on_loop(lambda: harness.core.want(Demand(fragment_steps=10, most_fragment_steps=40)))
    assert sum(len(each) for each in harness.segments()) == 40
    harness.on_loop(lambda: harness.core.serve_weights(2))
    assert play(harness, 100, 200) == 10


def test_a_bounded_queue_stays_bounded(make_harness: Make) -> None:
    harness = make_harness(demand=Demand(fragment_steps=8), hand_off=HandOffConfig(segment_steps=4, capacity_steps=12))
    harness.on_loop(lambda: harness.core.want(Demand(fragment_steps=1000, batches_ahead=1.0)))
    assert harness.core.room.demand.fragment_steps == 9
    assert harness.core.room.demand.batches_ahead == pytest.approx(1.0)
