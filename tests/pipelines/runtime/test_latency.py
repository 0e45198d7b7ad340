"""A latency histogram gives quantiles close to the exact ones, counts each action, adds up over threads, and tells what came since."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policyserver.pipelines.runtime.latency import LatencyHistogram


def test_quantiles_are_within_one_per_cent_of_the_exact_ones() -> None:
    durations = np.random.default_rng(0).lognormal(math.log(0.005), 1.0, size=20_000)
    histogram = LatencyHistogram()
    for duration in durations:
        histogram.add(float(duration))
    for share in (0.01, 0.5, 0.9, 0.99, 0.999):
        assert histogram.quantile_s(share) == pytest.approx(float(np.quantile(durations, share)), rel=0.015)
    assert histogram.max_s == durations.max()
    assert histogram.quantile_s(1.0) <= histogram.max_s


def test_a_call_counts_once_for_each_action_it_asked_for() -> None:
    histogram = LatencyHistogram()
    histogram.add(0.001, 99)
    histogram.add(0.1, 1)
    assert histogram.count == 100
    assert histogram.quantile_s(0.99) == pytest.approx(0.001, rel=0.01)
    assert histogram.quantile_s(1.0) == pytest.approx(0.1, rel=0.01)


def test_histograms_of_several_threads_add_up() -> None:
    parts = [LatencyHistogram() for _ in range(3)]
    for index, part in enumerate(parts):
        part.add(0.01 * (index + 1), 10)
    total = LatencyHistogram.merged(parts)
    assert total.count == 30
    assert total.max_s == 0.03
    assert total.quantile_s(0.5) == pytest.approx(0.02, rel=0.01)


def test_durations_beyond_the_ends_are_counted_and_nothing_has_no_quantile() -> None:
    histogram = LatencyHistogram()
    assert math.isnan(histogram.quantile_s(0.5))
    histogram.add(0.0)
    histogram.add(1e9)
    assert histogram.count == 2
    assert histogram.max_s == 1e9


def test_what_came_since_an_earlier_copy_is_apart_from_what_came_before() -> None:
    histogram = LatencyHistogram()
    histogram.add(1.0, 100)
    earlier = LatencyHistogram.merged([histogram])
    assert math.isnan(histogram.since(earlier).quantile_s(0.5))
    histogram.add(0.001, 10)
    newest = histogram.since(earlier)
    assert newest.count == 10
    assert newest.quantile_s(1.0) == pytest.approx(0.001, rel=0.01)
