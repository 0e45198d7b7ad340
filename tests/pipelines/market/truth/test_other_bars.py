"""Other bars after a cut are valid, begin with a gap, have no jumps, and leave what was before bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from policyserver.pipelines.market.truth.other_bars import fair_bars, other_future


def model(jumps: bool = False) -> np.ndarray:
    rng = np.random.default_rng(1)
    closes = 100.0 * np.exp(np.cumsum(0.01 * rng.standard_normal(500)))
    if jumps:
        closes[250:] *= 3.0
    opens = np.append(100.0, closes[:-1]) * np.exp(0.002 * rng.standard_normal(500))
    opens[250] = closes[250] if jumps else opens[250]
    high, low = np.maximum(opens, closes) * 1.001, np.minimum(opens, closes) * 0.999
    return np.stack([opens, high, low, closes, rng.uniform(0.0, 10.0, 500).round()], axis=1)


@pytest.mark.parametrize("kept", [0, 1, 250, 499, 500])
@pytest.mark.parametrize("jumps", [False, True])
def test_another_future(kept: int, jumps: bool) -> None:
    bars = model(jumps)
    for seed in range(20):
        other = other_future(bars, kept, np.random.default_rng(seed))
        assert np.array_equal(other[:kept], bars[:kept])
        assert (other[kept:, :4] != bars[kept:, :4]).any(axis=1).all()
        assert (other[:, 2] <= other[:, [0, 3]].min(axis=1)).all()
        assert (other[:, 1] >= other[:, [0, 3]].max(axis=1)).all()
        assert np.array_equal(other[:, 4] == 0, bars[:, 4] == 0)
        assert np.abs(np.diff(np.log(other[kept:, 3]))).max(initial=0.0) < 0.1
        if 0 < kept < 500:
            assert not other[kept, 2] <= bars[kept - 1, 3] <= other[kept, 1], "the first bar does not hold the last close"


def test_a_price_that_never_moves_moves_afterwards() -> None:
    still = np.tile([5.0, 5.0, 5.0, 5.0, 0.0], (50, 1))
    other = other_future(still, 20, np.random.default_rng(0))
    assert len(set(other[20:, 3])) == 30
    assert fair_bars(still, np.random.default_rng(0)) == pytest.approx(still)


def test_fair_bars_go_on_at_a_price_and_are_as_volatile_as_the_bars_were() -> None:
    bars = model()
    fair = fair_bars(bars, np.random.default_rng(0), start=7.0)
    assert fair[0, 0] == pytest.approx(7.0)
    ranges = [float(np.log(each[:, 1] / each[:, 2]).mean()) for each in (bars, fair)]
    assert ranges[1] == pytest.approx(ranges[0], rel=0.1)
