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
