"""What twenty thousand episodes leave behind: nothing but a bounded list of their ids."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from policyserver.common.flags import StepFlag
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig
from tests.server.anonymous_memory import anonymous_mb
from tests.server.core_harness import CoreHarness, columns, module_of, policy_of, table_of, trajectories_of

EPISODES = 4000


@pytest.mark.long
def test_twenty_thousand_episodes_give_their_memory_back(make_harness: Callable[..., CoreHarness]) -> None:
    harness = make_harness(
        policy_of(module_of("lstm_shared")),
        episodes=EpisodesConfig(max_open=EPISODES, finished_remembered=1000),
        hand_off=HandOffConfig(segment_steps=64, capacity_steps=4 * EPISODES),
    )

    def wave(number: int) -> float:
        ids = [f"{number}-{index}" for index in range(EPISODES)]
        handles = harness.submit(columns(np.zeros(EPISODES), 0, StepFlag.START, ids))
        harness.submit(columns(handles, 1, StepFlag.NONE))
        held = anonymous_mb()
        harness.submit(columns(handles, 2, StepFlag.TERMINATED))
        assert sum(block.steps for block in harness.blocks()) == 2 * EPISODES
        harness.core.trim()
        return held

    wave(0)
    before = anonymous_mb()
    held = max(wave(number) for number in range(1, 5))
    trajectories, table = trajectories_of(harness.core), table_of(harness.core)
    assert harness.core.snapshot().episodes_finished == 5 * EPISODES
    assert (trajectories.pages_used, table.open, len(harness.client.aliases), len(table._ids)) == (0, 0, 0, 0)
    assert (trajectories._pages.touched, table._slots.touched) == (0, 0)
    assert (len(table._finished), len(table._finished_by_id)) == (1000, 1000)
    assert held - before > 15, "the episodes did take memory"
    assert anonymous_mb() - before < 10, "and gave it back"


def test_open_episodes_take_pages_on_demand(make_harness: Callable[..., CoreHarness]) -> None:
    before = anonymous_mb()
    harness = make_harness(policy_of(module_of("lstm_shared")), episodes=EpisodesConfig(max_open=100_000))
    assert anonymous_mb() - before < 40
    harness.play("a", 3)
    assert harness.pages_used == 1
    assert anonymous_mb() - before == pytest.approx(0, abs=40)
