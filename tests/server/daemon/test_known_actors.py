"""What each serving actor answered last is told at once, with how it is, whether or not it answers now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from policyserver.server.daemon.known_actors import AWAY_S, KnownActors
from policyserver.server.processes.serving_report import ServingReport
from policyserver.v1 import admin_service_pb2 as pb


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def report(number: int, uptime_s: float, actions: int, boot_id: str = "a", **others: Any) -> ServingReport:
    counters: Mapping[str, Any] = {
        "boot_id": boot_id,
        "uptime_s": uptime_s,
        "actions": actions,
        "weights_seq_no": 7,
        "episodes_open": 3,
    }
    return ServingReport(dict(counters), number=number, **{"addresses": (f"10.77.0.{number + 1}:9900",), **others})


@pytest.fixture
def clock() -> Clock:
    return Clock()


def states(actors: KnownActors, numbers: range, silent: list[int]) -> list[str]:
    return [pb.ActorState.Name(each.state).removeprefix("ACTOR_STATE_").lower() for each in actors.told(numbers, silent)]


def test_one_that_answers_is_told_with_where_it_is_and_its_rate(clock: Clock) -> None:
    actors = KnownActors(clock)
    actors.note(report(1, 5.0, 100, host="b", node_address="10.77.0.2"))
    (first,) = actors.told(range(1, 2))
    assert not first.HasField("actions_per_s"), "of one answer"
    actors.note(report(1, 5.1, 150, host="b", node_address="10.77.0.2"))  # asked at once, for an update
    assert not actors.told(range(1, 2))[0].HasField("actions_per_s")
    actors.note(report(1, 7.0, 500, host="b", node_address="10.77.0.2"))
    clock.now_s += 0.5
    (told,) = actors.told(range(1, 2))
    expected = pb.ServingActor(
        number=1,
        state=pb.ACTOR_STATE_SERVING,
        addresses=["10.77.0.2:9900"],
        host="b",
        node_address="10.77.0.2",
        weights_seq_no=7,
        episodes_open=3,
        actions_per_s=200.0,
        since_answer_s=0.5,
        boot_id="a",
    )
    assert told == expected
    actors.note(report(1, 0.5, 10, boot_id="b"))
    assert not actors.told(range(1, 2))[0].HasField("actions_per_s"), "of another process"


def test_all_that_should_be_there_are_told_in_order_and_no_others(clock: Clock) -> None:
    actors = KnownActors(clock)
    actors.note(report(3, 1.0, 0))
    actors.note(report(1, 1.0, 0))
    assert states(actors, range(1, 4), [2]) == ["serving", "silent", "serving"]
    assert states(actors, range(1, 3), []) == ["serving", "away"], "number 3 is gone"
    (*_, third) = actors.told(range(1, 4))
    assert (third.state, list(third.addresses), third.HasField("since_answer_s")) == (pb.ACTOR_STATE_AWAY, [], False)


def test_one_that_is_silent_or_gives_no_answer_is_told_with_what_it_said_last(clock: Clock) -> None:
    actors = KnownActors(clock)
    for uptime_s in (1.0, 2.0):
        actors.note(report(1, uptime_s, 10))
        actors.note(report(2, uptime_s, 10))
    assert states(actors, range(1, 3), [2]) == ["serving", "silent"], "at once"
    clock.now_s += AWAY_S + 0.1
    first, second = actors.told(range(1, 3), [2])
    assert (first.state, second.state) == (pb.ACTOR_STATE_AWAY, pb.ACTOR_STATE_SILENT)
    for each in (first, second):
        assert each.addresses
        assert (each.episodes_open, each.weights_seq_no) == (3, 7)
        assert each.since_answer_s == pytest.approx(AWAY_S + 0.1)
        assert not each.HasField("actions_per_s")


def test_one_that_leaves_does_so_until_its_successor_answers(clock: Clock) -> None:
    actors = KnownActors(clock)
    actors.note(report(1, 9.0, 10, leaves=True))
    assert states(actors, range(1, 2), []) == ["leaving"]
    clock.now_s += 2 * AWAY_S
    assert states(actors, range(1, 2), [1]) == ["silent"], "for it may have been cut off meanwhile"
    assert states(actors, range(1, 2), []) == ["leaving"]
    actors.note_replaced(1, True)
    assert states(actors, range(1, 2), [1]) == ["leaving"], "its end cuts the link, too"
    actors.note(report(1, 0.5, 0, boot_id="b"))
    assert states(actors, range(1, 2), []) == ["serving"]


def test_one_that_has_gone_to_be_replaced_is_leaving_though_it_did_not_say_so_itself(clock: Clock) -> None:
    actors = KnownActors(clock)
    actors.note_replaced(1, True)
    actors.note(report(1, 9.0, 10))
    actors.note_replaced(1, True)
    clock.now_s += 2 * AWAY_S
    assert states(actors, range(1, 2), []) == ["leaving"]
    actors.note_replaced(1, False)
    assert states(actors, range(1, 2), []) == ["away"], "which was given up"
    actors.note(report(1, 0.5, 0, boot_id="b"))
    assert states(actors, range(1, 2), []) == ["serving"]


def test_what_is_told_is_bounded_by_the_number_of_actors(clock: Clock) -> None:
    actors = KnownActors(clock)
    actors.note(report(1, 1.0, 0, addresses=("a" * 10_000,) * 1000, host="h" * 10_000, node_address="n" * 10_000, boot_id="b" * 10_000))
    assert sum(each.ByteSize() for each in actors.told(range(1, 2))) < 6000
