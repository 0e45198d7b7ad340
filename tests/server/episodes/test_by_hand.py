"""What clients chose themselves is counted by client, beyond their connections, and of a bounded number of clients."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from policyserver.common.flags import StepFlag
from policyserver.server.episodes import by_hand
from policyserver.server.episodes.by_hand import ByHand
from tests.server.core_harness import CoreHarness, Row, observation, start

GIVEN, OVERRIDE = int(StepFlag.ACTION_GIVEN), int(StepFlag.ACTION_GIVEN | StepFlag.OVERRIDE)
Make = Callable[..., CoreHarness]


def test_actions_given_and_overridden_are_counted_by_client(make_harness: Make) -> None:
    harness = make_harness()
    desk, other = harness.connect("desk"), harness.connect("other")
    handle, beside = harness.one(start("a", observation(0)), desk).handle, harness.one(start("a", observation(0)), other).handle
    for client, its in ((desk, handle), (other, beside)):
        harness.one(Row(its, 1, flags=GIVEN if client is desk else 0, observation=observation(1), action=2), client)
    harness.one(Row(handle, 2, observation=observation(2)), desk)
    harness.one(Row(handle, 2, flags=OVERRIDE, observation=observation(2), action=0), desk)
    assert harness.core.by_hand() == ({"desk": (3, 2, 1)}, 0)
    harness.one(Row(handle, 3, flags=StepFlag.TERMINATED, observation=observation(3)), desk)
    harness.disconnect(desk)
    again = harness.connect("desk")
    assert again is not desk
    harness.one(start("b", observation(0)), again)
    assert harness.core.by_hand() == ({"desk": (4, 2, 1)}, 0)


@pytest.mark.parametrize("first", [0, OVERRIDE])
def test_an_override_that_is_repeated_for_want_of_an_answer_is_counted_once(make_harness: Make, first: int) -> None:
    harness = make_harness()
    handle = harness.one(start("a", observation(0))).handle
    harness.one(Row(handle, 1, flags=first, observation=observation(1), action=2))
    answers = [harness.one(Row(handle, 1, flags=OVERRIDE, observation=observation(1), action=2)) for _ in range(3)]
    assert {int(answer.action) for answer in answers} == {2}
    stats, overrides = harness.core.snapshot(), 0 if first else 1
    assert (stats.actions_given, stats.actions_overridden, stats.rows_repeated) == (1, overrides, 3 - overrides)
    assert harness.core.by_hand() == ({"client": (2, 1, overrides)}, 0)
    harness.one(Row(handle, 1, flags=OVERRIDE, observation=observation(1), action=0))
    assert harness.core.snapshot().actions_overridden == overrides + 1, "another action is another override"


def test_of_too_many_clients_the_one_that_chose_longest_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_hand, "MOST_CLIENTS", 2)
    hands = ByHand()
    for name in ("a", "b", "a", "c"):
        counts = hands.counts_of(name)
        counts.given += 1
        hands.note(name, counts)
    assert {name: given for name, (_, given, _) in hands.report().items()} == {"a": 2, "c": 1}
    assert hands.dropped == 1
    assert hands.counts_of("b").given == 0
