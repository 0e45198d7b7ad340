"""An ended episode is told of until the daemon says that it knows it; what is dropped leaves a gap in the numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from policyserver.server.episodes import ended_episodes, untold_episodes
from policyserver.server.episodes.untold_episodes import UntoldEpisodes
from tests.server.core_harness import CoreHarness


def taken(untold: UntoldEpisodes, known: int | None) -> tuple[int, list[str], int]:
    first, episodes, missing = untold.take(known)
    return first, [each.episode for each in episodes], missing


def test_they_are_told_again_until_they_are_known(harness: CoreHarness) -> None:
    untold = UntoldEpisodes(harness.core.ended)
    assert taken(untold, 0) == (0, [], 0)
    for name in "ab":
        harness.play(name, 1)
    assert taken(untold, 0) == (0, ["a", "b"], 0)
    harness.play("c", 1)
    assert taken(untold, 0) == (0, ["a", "b", "c"], 0), "the answer was lost"
    assert taken(untold, 2) == (2, ["c"], 0)
    assert taken(untold, 3) == (3, [], 0)
    assert taken(untold, 99) == (3, [], 0)


def test_without_a_daemon_that_says_so_each_is_told_once(harness: CoreHarness) -> None:
    untold = UntoldEpisodes(harness.core.ended)
    harness.play("a", 1)
    assert taken(untold, None) == (0, ["a"], 0)
    harness.play("b", 1)
    assert taken(untold, None) == (1, ["b"], 0)
    assert taken(untold, None) == (2, [], 0)


def test_of_too_many_the_oldest_are_dropped(make_harness: Callable[..., CoreHarness], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (ended_episodes, untold_episodes):
        monkeypatch.setattr(module, "MOST_WAITING", 2)
    harness = make_harness()
    untold = UntoldEpisodes(harness.core.ended)
    for names, expected in (("ab", (0, ["a", "b"], 0)), ("cd", (0, ["a", "b", "c", "d"], 0)), ("e", (1, ["b", "c", "d", "e"], 0))):
        for name in names:
            harness.play(name, 1)
        assert taken(untold, 0) == expected
    for name in "fgh":
        harness.play(name, 1)
    assert taken(untold, 0) == (6, ["g", "h"], 1), "what is older than a gap is dropped with it"
