"""A prior draws within its bounds and by its distribution, and one that is impossible is refused by its field."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from policyserver.pipelines.market.priors import Prior


@pytest.mark.long
@given(bounds=st.tuples(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9)).map(sorted), seed=st.integers(0, 2**32), logs=st.booleans())
def test_every_draw_lies_within_the_bounds(bounds: list[float], seed: int, logs: bool) -> None:
    prior = Prior(bounds[0], bounds[1], "log_uniform" if logs else "uniform")
    assert bounds[0] <= prior.draw(np.random.default_rng(seed)) <= bounds[1]


@pytest.mark.long
def test_draws_follow_their_distribution() -> None:
    rng = np.random.default_rng(5)
    uniform = [Prior(-1.0, 3.0).draw(rng) for _ in range(2000)]
    logs = [math.log(Prior(0.01, 10.0, "log_uniform").draw(rng)) for _ in range(2000)]
    assert stats.kstest(uniform, stats.uniform(-1.0, 4.0).cdf).pvalue > 0.01
    assert stats.kstest(logs, stats.uniform(math.log(0.01), math.log(1000.0)).cdf).pvalue > 0.01


def test_a_fixed_prior_has_one_value() -> None:
    assert {Prior.fixed(0.3).draw(np.random.default_rng(seed)) for seed in range(20)} == {0.3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2.0, 1.0), r"^argument of Prior: high: expected at least low=2\.0, received 1\.0"),
        ((0.0, 1.0, "log_uniform"), r"^argument of Prior: low: expected a positive number for log_uniform, received 0\.0"),
        ((math.nan, 1.0), "low: expected a finite number, received nan"),
        ((0.0, math.inf), "high: expected a finite number, received inf"),
        ((0.0, 1.0, "normal"), "distribution: expected uniform.log_uniform"),
    ],
)
def test_impossible_priors_are_refused_by_field(arguments: tuple[float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prior(*arguments)
