"""A lone connection takes all; when several want more than there is, each has a share of the open episodes and of the rows of a pass."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median

import pytest

from policyserver.common.flags import StepFlag
from policyserver.server.config.serving_config import EpisodesConfig
from tests.server.core_harness import CoreHarness, Row, observation, pack, start
from tests.server.flood import ROWS
from tests.server.grpc_front.test_bounds import failure
from tests.server.serving_loop_harness import ServingLoopHarness, Unary, running_serving_loop

Make = Callable[..., CoreHarness]


@pytest.fixture
def eight(make_harness: Make) -> CoreHarness:
    return make_harness(episodes=EpisodesConfig(max_open=8))


def begin(harness: CoreHarness, client: str, *names: str) -> list[int]:
    """Start episodes in one message; return the handles of those that began."""
    answers = harness.send(*[start(name) for name in names], client=harness.connect(client))
    assert {answer.error.reason for answer in answers if answer.error} <= {"TOO_MANY_EPISODES"}
    return [answer.handle for answer in answers if answer.error is None]


def end(harness: CoreHarness, client: str, *handles: int) -> None:
    for handle in handles:
        harness.one(Row(handle, 1, StepFlag.TERMINATED), harness.connect(client))


@pytest.fixture
def short_turns() -> Iterator[None]:
    """Let the client's threads have the interpreter's lock as soon as they would have it in a process of their own."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    yield
    sys.setswitchinterval(before)


# Open episodes ------------------------------------------------------------------------------------------------------------------------


def test_what_a_connection_that_took_all_gives_back_goes_to_the_one_that_waits(eight: CoreHarness) -> None:
    taken = begin(eight, "large", *"abcdefgh")
    assert len(taken) == 8, "a lone connection may take all"
    assert begin(eight, "small", "a") == []
    end(eight, "large", *taken[:2])
    assert begin(eight, "large", *"ij") == [], "it takes again at once what the other waits for"
    small = begin(eight, "small", *"ab")
    assert len(small) == 2
    end(eight, "large", taken[2])
    assert len(begin(eight, "large", "k")) == 1, "nobody waits"
    assert begin(eight, "small", "c") == []
    end(eight, "large", *taken[3:6])
    assert len(begin(eight, "large", *"lm")) == 1, "it has its share"
    assert len(begin(eight, "small", *"cdefg")) == 2, "and the other no more than its own"
    eight.send(Row(small[0], 1, StepFlag.TERMINATED), client=eight.connect("small"))
    assert eight.core.snapshot().starts_refused == 8


def test_who_waits_no_longer_holds_nobody_up(eight: CoreHarness) -> None:
    taken = begin(eight, "large", *"abcdefgh")
    assert begin(eight, "small", "a") == []
    end(eight, "large", *taken[:4])
    assert len(begin(eight, "large", *"ijkl")) == 0
    eight.advance(31.0)
    assert len(begin(eight, "large", *"ijkl")) == 4


def test_a_share_is_a_connections_not_a_names(eight: CoreHarness) -> None:
    one, two = (eight.on_loop(lambda name=name: eight.core.connect(name, "ipv4:127.0.0.1:4000")) for name in ("one", "two"))  # type: ignore[misc]
    handles = [answer.handle for answer in eight.send(*[start(name) for name in "abcd"], client=one)]
    eight.send(*[start(name) for name in "efgh"], client=two)
    assert begin(eight, "small", "a") == []
    eight.one(Row(handles[0], 1, StepFlag.TERMINATED), one)
    (refused,) = eight.send(start("i"), client=two)
    assert refused.error is not None
    assert "of one connection its share" in refused.error.message
    assert len(begin(eight, "small", "a")) == 1


@pytest.mark.long
def test_plain_calls_have_their_share_too() -> None:
    with running_serving_loop(episodes=EpisodesConfig(max_open=4)) as serve:
        large, small = Unary(serve.stub(), "large"), serve.client()
        for number in range(4):
            large.get_action(large.start(f"{number}"), observation())
        with pytest.raises(Exception, match="at most 4 open episodes"):
            small.get_action(small.start_episode(), observation())
        large.end("0", observation())
        assert failure(large.start, "4")[0] == "RESOURCE_EXHAUSTED"
        small.get_action(small.start_episode(), observation())


# Rows of a pass -----------------------------------------------------------------------------------------------------------------------


def flood(rows: int = ROWS) -> list[Row]:
    return [Row(handle << 40, 1) for handle in range(1, rows + 1)]


@pytest.mark.long
def test_rows_of_a_flood_are_answered_a_few_at_a_time_while_a_neighbour_asks(harness: CoreHarness) -> None:
    neighbour, large = harness.connect("neighbour"), harness.connect("large")
    packed = pack(flood())
    handle = harness.one(start("a"), neighbour).handle
    flooded = harness.on_loop(lambda: harness.core.submit(packed, large))
    for number in range(1, 21):
        harness.loop.run_until_complete(harness.on_loop(lambda number=number: harness.core.submit(pack([Row(handle, number)]), neighbour)))  # type: ignore[misc]
    assert not flooded.done(), "the neighbour waited for all of them"
    replies = harness.loop.run_until_complete(flooded)
    assert sorted(replies.refusals) == list(range(ROWS))
    assert harness.core.snapshot().rows_refused == ROWS


def test_a_lone_connection_has_all_its_rows_in_one_pass(harness: CoreHarness) -> None:
    answers = harness.send(*[start(f"{number}") for number in range(500)])
    assert all(answer.error is None for answer in answers)
    assert harness.core.snapshot().batches == 1


@pytest.mark.long
def test_what_waits_for_its_turn_comes_in_its_order(harness: CoreHarness) -> None:
    neighbour, large = harness.connect("neighbour"), harness.connect("large")
    handles = [answer.handle for answer in harness.send(*[start(f"{number}") for number in range(200)], client=large)]
    handle = harness.one(start("a"), neighbour).handle
    steps = [Row(handle, number, reward=float(number)) for number in range(1, 4) for handle in handles]
    messages = [pack(steps[:500]), pack(steps[500:])]
    futures = harness.on_loop(lambda: [harness.core.submit(rows, large) for rows in messages])
    harness.one(Row(handle, 1), neighbour)
    for future in futures:
        assert not harness.loop.run_until_complete(future).refusals
    harness.send(*[Row(handle, 4, StepFlag.TERMINATED) for handle in handles], client=large)
    segments = [segment for segment in harness.segments() if len(segment) == 4]
    assert {tuple(segment.get_rewards()) for segment in segments} == {(1.0, 2.0, 3.0, 0.0)}
    assert len(segments) == 200


@pytest.mark.process
@pytest.mark.timeout(300)
def test_a_client_that_floods_unknown_rows_leaves_its_neighbour_a_fair_part(serve: ServingLoopHarness, short_turns: None) -> None:
    neighbour = serve.client()
    episode = neighbour.start_episode()

    def steps_per_s(seconds: float = 0.4) -> float:
        began, steps = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            neighbour.get_action(episode, observation(steps % 50))
            steps += 1
        return steps / (time.monotonic() - began)

    steps_per_s(0.3)
    alone = steps_per_s()
    command = [sys.executable, "-m", "tests.server.flood", serve.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as beside:
        try:
            assert beside.stdout is not None
            assert beside.stdout.readline() == "flooding\n"
            turns = [steps_per_s(0.4)]
            if turns[0] <= alone / 25:  # a machine that stands still or has other things to do leaves it less in a turn, but not in most
                turns += [steps_per_s(0.4) for _ in range(8)]
        finally:
            beside.kill()
    flooded = median(turns)
    assert flooded > alone / 25, f"{flooded:.0f} steps/s beside the flood, {alone:.0f} alone; turns: {turns}"
