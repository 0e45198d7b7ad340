"""The rank test gives the exact chance: that of all arrangements of the values, counted one by one."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from policyserver.server.guard.mann_whitney import MOST, chance_of_lower


def counted(sample: list[float], reference: list[float]) -> float:
    """The share of all choices of as many of the ranks whose sum is at most the sample's."""
    values = sorted([*sample, *reference])
    of_sample = sum(values.index(each) for each in sample)
    sums = [sum(places) for places in combinations(range(len(values)), len(sample))]
    return sum(each <= of_sample for each in sums) / len(sums)


@pytest.mark.parametrize(("few", "many"), [(2, 2), (3, 7), (6, 4), (5, 9)])
def test_it_is_the_share_of_the_arrangements(few: int, many: int) -> None:
    random = np.random.default_rng(few)
    for shift in (0.0, -1.0, -10.0, 10.0):
        sample, reference = (random.normal(size=few) + shift).tolist(), random.normal(size=many).tolist()
        assert chance_of_lower(sample, reference) == pytest.approx(counted(sample, reference))


def test_equal_returns_tell_nothing() -> None:
    assert chance_of_lower([1.0] * 10, [1.0] * 30) == 1.0
    assert chance_of_lower([0.0] * 10, [1.0] * 30) == pytest.approx(1.0 / 847_660_528)


def test_more_than_the_table_is_made_for_is_refused() -> None:
    with pytest.raises(ValueError, match=f"at most {MOST}, received 3 and 101"):
        chance_of_lower([1.0] * 3, [1.0] * (MOST + 1))
