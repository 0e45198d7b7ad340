"""The curve of returns shows the mean return as it was at each time and ends with the one of now."""

from __future__ import annotations

import numpy as np
import pytest

from policyserver.monitoring.newest_tenth import newest_count
from policyserver.monitoring.tail import Tail
from policyserver.pipelines.run_state import EPISODE_COLUMNS, EPISODES_KEPT
from policyserver.pipelines.snapshot import _curve


@pytest.mark.long
@pytest.mark.parametrize("count", [0, 1, 5, 1000, 200_000, 1_000_000])
def test_the_curve_is_the_mean_return_as_it_was_and_ends_with_the_one_of_now(count: int) -> None:
    episodes = Tail(EPISODE_COLUMNS, EPISODES_KEPT)
    returns = np.arange(count, dtype=float)
    for start in range(0, count, 50_000):
        episodes.extend([(each,) * len(EPISODE_COLUMNS) for each in returns[start : start + 50_000].tolist()])
    curve = _curve(episodes)
    assert len(curve) >= min(count, 10)
    assert list(curve) == sorted(curve)
    if count:
        assert curve[-1] == pytest.approx(returns[-newest_count(count) :].mean(), rel=1e-9)
