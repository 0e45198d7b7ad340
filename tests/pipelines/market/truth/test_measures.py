"""The measures of a record of episodes by name, and their bands over the episodes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policyserver.pipelines.market.truth.measures import Band, Episodes, band, measure


def record(**columns: object) -> Episodes:
    """Return two episodes, one of three bars and one of two; `columns` take the place of theirs."""
    nan = math.nan
    own: dict[str, object] = {
        "equity": [[100.0, 110.0, 110.0, 120.0], [200.0, 190.0, 180.0, nan]],
        "exposure": [[1.0, 0.0, 0.5], [0.0, 0.0, nan]],
        "traded": [[100.0, 120.0, 0.0], [0.0, 0.0, nan]],
        "fees": [[1.0, 1.0, 0.0], [0.0, 0.0, nan]],
        "ordered": [[4.0, 2.0, 0.0], [0.0, 0.0, nan]],
        "filled": [[1.0, 2.0, 0.0], [0.0, 0.0, nan]],
    }
    return Episodes(**{name: np.array(column) for name, column in (own | columns).items()})


def test_what_was_traded_and_held() -> None:
    measures = measure(record(), periods_per_year=252)
    expected = {
        "total_return": [0.2, -0.1],
        "turnover": [220.0 / 110.0, 0.0],
        "fees": [0.02, 0.0],
        "fill_rate": [0.5, math.nan],
        "exposure": [0.5, 0.0],
        "time_in_market": [2 / 3, 0.0],
        "hit_ratio": [1.0, 0.0],
        "profit_factor": [math.nan, 0.0],
        "longest_drawdown_bars": [0.0, 2.0],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(measures[name], values, rtol=1e-12, err_msg=name)


def test_every_measure_has_a_number_for_each_episode_and_none_is_infinite() -> None:
    for name, values in measure(record(), periods_per_year=252).items():
        assert values.shape == (2,), name
        assert values.dtype == np.float64, name
        assert not np.isinf(values).any(), name


def test_a_band_holds_the_quantiles_of_the_episodes_that_have_the_measure() -> None:
    values = np.append(np.arange(101.0), [math.nan, math.nan])
    assert band(values) == Band(5.0, 50.0, 95.0, episodes=101)


def test_a_band_of_nothing_is_nan() -> None:
    nothing = band(np.full(3, math.nan))
    assert nothing.episodes == 0
    assert all(math.isnan(bound) for bound in (nothing.low, nothing.median, nothing.high))


def test_a_column_of_another_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"fees: expected shape \(2, 3\)"):
        record(fees=[[0.0, 0.0]])
