"""Of each pass its rows and the times of its parts are counted, in classes that double."""

from __future__ import annotations

from collections.abc import Callable

from policyserver.server.episodes.pass_timing import PHASES, DoublingHistogram
from tests.server.core_harness import CoreHarness, observation, start

Make = Callable[..., CoreHarness]


def test_a_class_has_the_numbers_up_to_its_power_of_two() -> None:
    histogram = DoublingHistogram()
    for value in (0, 1, 2, 3, 4, 5, 10**9):
        histogram.add(value)
    counts, total = histogram.copy(0.5)
    assert counts[:4] == [2, 1, 2, 1]
    assert (counts[-1], sum(counts), total) == (1, 7, 0.5 * (15 + 10**9))


def test_a_pass_counts_once_whatever_its_rows(make_harness: Make) -> None:
    harness = make_harness()
    harness.send(*(start(f"{number}", observation(0)) for number in range(5)))
    timing = harness.core.statistics.timing
    assert (sum(timing.rows.counts), timing.rows.total) == (1, 5)
    assert {phase: sum(timing.phases[phase].counts) for phase in PHASES} == dict.fromkeys(PHASES, 1)
    assert timing.phases["decide"].total <= timing.phases["pass"].total
    queues = harness.core.queues()
    assert (queues["questions_rows"], queues["room"]) == (0.0, 1.0)
    assert queues["learner_bytes"] > 0
