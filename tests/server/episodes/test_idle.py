"""Episodes of clients that are gone end as truncated; those of clients that are only silent never do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from policyserver.common.flags import StepFlag
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig
from tests.server.core_harness import CoreHarness, Row, observation, pack, start, table_of, timers_of

Make = Callable[..., CoreHarness]
MINUTE = EpisodesConfig(max_open=64, episode_idle_timeout_s=60.0)


@pytest.fixture
def harness(make_harness: Make) -> CoreHarness:
    return make_harness(episodes=MINUTE, hand_off=HandOffConfig(segment_steps=4))


def begin(harness: CoreHarness, steps: int, episode_id: str = "a") -> int:
    handle = harness.one(start(episode_id, observation(0))).handle
    for number in range(1, steps):
        harness.one(Row(handle, number, reward=float(number), observation=observation(number)))
    return handle


@pytest.mark.parametrize("steps", [2, 3, 4, 6, 9])
def test_an_episode_ends_truncated_at_its_last_complete_step(harness: CoreHarness, steps: int) -> None:
    handle = begin(harness, steps)
    harness.disconnect(harness.client)
    harness.advance(59.0)
    assert harness.core.snapshot().episodes_open == 1
    harness.advance(1.0)
    statistics = harness.core.snapshot()
    assert (statistics.episodes_open, statistics.episodes_reaped, statistics.episodes_finished) == (0, 1, 0)
    segments = harness.segments()
    assert sum(len(segment) for segment in segments) == steps - 1
    assert not any(segment.is_terminated for segment in segments)
    assert segments[-1].is_truncated or (steps - 1) % 4 == 0
    assert [reward for segment in segments for reward in segment.get_rewards()] == list(range(1, steps))
    assert segments[-1].get_observations(-1)[0] == steps - 1
    assert harness.pages_used == 0
    returned = harness.connect("client")
    error = harness.refusal(Row(handle, steps), returned)
    assert (error.reason, "Start a new episode" in error.message) == ("EPISODE_IDLE", True)


def test_an_episode_without_a_complete_step_leaves_nothing(harness: CoreHarness) -> None:
    begin(harness, 1)
    harness.disconnect(harness.client)
    harness.advance(60.0)
    assert harness.segments() == []
    assert harness.pages_used == 0


def test_a_client_that_returns_in_time_keeps_its_episodes(harness: CoreHarness) -> None:
    handle = begin(harness, 2)
    harness.disconnect(harness.client)
    harness.advance(59.0)
    returned = harness.connect("client")
    harness.advance(3600.0)
    harness.one(Row(handle, 2, StepFlag.TERMINATED, 2.0), returned)
    (segment,) = harness.segments()
    assert segment.get_rewards().tolist() == [1.0, 2.0]
    assert segment.is_terminated
    harness.disconnect(returned)
    harness.advance(60.0)
    assert harness.core.snapshot().episodes_reaped == 0


def test_the_old_stream_of_a_client_that_has_a_new_one_does_no_harm(harness: CoreHarness) -> None:
    begin(harness, 2)
    returned = harness.connect("client")
    assert returned is harness.client
    harness.disconnect(returned)
    harness.advance(3600.0)
    assert harness.core.snapshot().episodes_open == 1


def test_a_connected_client_may_be_silent_for_ever(harness: CoreHarness) -> None:
    handle = begin(harness, 2)
    harness.advance(7 * 24 * 3600.0)
    harness.one(Row(handle, 2, StepFlag.TERMINATED, 1.0))


def test_a_client_whose_first_row_was_still_on_its_way_leaves_no_episode_behind(harness: CoreHarness) -> None:
    client = harness.connect("short-lived")

    async def submit_and_leave() -> None:
        harness.core.submit(pack([start("a")]), client)
        harness.core.disconnect(client)

    harness.loop.run_until_complete(submit_and_leave())
    harness.settle()
    harness.advance(60.0)
    assert harness.core.snapshot().episodes_open == 0


def test_episodes_with_training_disabled_end_too_and_leave_nothing(harness: CoreHarness) -> None:
    handle = harness.one(start("a", flags=StepFlag.TRAINING_DISABLED)).handle
    harness.one(Row(handle, 1, reward=1.0))
    harness.disconnect(harness.client)
    harness.advance(60.0)
    assert harness.core.snapshot().episodes_open == 0
    assert harness.segments() == []


def test_a_gone_client_leaves_the_others_alone(harness: CoreHarness) -> None:
    other = harness.connect("other")
    handle = harness.one(start("a"), other).handle
    begin(harness, 3)
    harness.disconnect(harness.client)
    harness.advance(60.0)
    harness.one(Row(handle, 1), other)
    assert harness.core.snapshot().episodes_open == 1


@pytest.mark.long
def test_clients_that_come_and_go_leave_no_trace_but_the_remembered_ids(harness: CoreHarness) -> None:
    for number in range(50):
        client = harness.connect(f"{number}")
        harness.one(start("a"), client)
        harness.disconnect(client)
    harness.advance(60.0)
    table = table_of(harness.core)
    assert (table.open, len(table.clients()), timers_of(harness.core)) == (0, 1, 0)
