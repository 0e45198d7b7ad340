"""An Ornstein-Uhlenbeck log-price is stationary from the start, forgets exponentially, and is as predictable as theory says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserver.pipelines.market.processes.ou import OrnsteinUhlenbeck, autoregressive_paths
from tests.pipelines.market.processes.facts import Fact, at_closes, fixed, log_paths, mutant, wrong_facts

REVERSION, VOLATILITY, N_ROWS, N_BARS, STEPS = 0.05, 0.01, 8000, 40, 4
OU = fixed(mean_price=100.0, reversion=REVERSION, volatility=VOLATILITY)


def ou_facts(process: Any) -> dict[str, Fact]:
    distances = at_closes(log_paths(process, N_ROWS, N_BARS, STEPS), STEPS) - math.log(100.0)
    variance, root = VOLATILITY**2 / (2 * REVERSION), math.sqrt(N_ROWS)
    facts = {}
    for bar in (0, 1, N_BARS):
        facts[f"mean at {bar}"] = Fact(distances[:, bar].mean(), 0.0, math.sqrt(variance) / root)
        facts[f"variance at {bar}"] = Fact(distances[:, bar].var(), variance, variance * math.sqrt(2) / root)
    for lag in (1, 5, round(math.log(2) / REVERSION), N_BARS):
        kept = math.exp(-REVERSION * lag)
        facts[f"autocorrelation at {lag}"] = Fact(np.corrcoef(distances[:, 0], distances[:, lag])[0, 1], kept, (1 - kept**2) / root)
    returns, forecasts = np.diff(distances), math.expm1(-REVERSION) * distances[:, :-1]
    share, n = -math.expm1(-REVERSION) / 2, returns.size
    explained = 1 - np.mean((returns - forecasts) ** 2) / np.mean(returns**2)
    return facts | {"predictable share": Fact(float(explained), share, 2 * math.sqrt(share * (1 - share) / n))}


@pytest.mark.long
def test_ou_has_its_facts() -> None:
    assert wrong_facts(ou_facts(OrnsteinUhlenbeck(**OU))) == []
    assert math.exp(-REVERSION * math.log(2) / REVERSION) == pytest.approx(0.5)


@pytest.mark.long
@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        pytest.param("stationary_std * draws.normal(1)", "0.0 * draws.normal(1)", "variance at 0", id="starts at its level"),
        pytest.param("stationary_std * draws.normal(1)", "3.0 * stationary_std * draws.normal(1)", "variance at 1", id="starts too far"),
        pytest.param("np.sqrt(2.0 * parameters", "np.sqrt(parameters", "variance at 40", id="stationary variance without the 2"),
        pytest.param('["reversion"] * (1.0 / steps_per_bar)', '["reversion"]', "autocorrelation at 1", id="reversion per sub-step"),
        pytest.param(
            "stationary_std * np.sqrt(-by_row(math.expm1, -2.0 * rate))",
            'parameters["volatility"]',
            "variance at 40",
            id="noise per sub-step",
        ),
        pytest.param("weights * (paths[rows, first, None]", "(paths[rows, first, None]", "variance at 1", id="no reversion"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_wrong_ou_is_found(old: str, new: str, fact: str) -> None:
    assert fact in wrong_facts(ou_facts(mutant("ou", old, new).OrnsteinUhlenbeck(**OU)))


@pytest.mark.long
@given(
    rates=st.lists(st.floats(1e-4, 50.0), min_size=1, max_size=4),
    start=st.floats(-10, 10),
    noise=st.lists(st.floats(-1, 1), max_size=200),
)
def test_autoregressive_paths_are_the_recursion(rates: list[float], start: float, noise: list[float]) -> None:
    paths = autoregressive_paths(np.full(len(rates), start), np.array(rates), np.array([noise] * len(rates)).reshape(len(rates), -1))
    for rate, path in zip(rates, paths, strict=True):
        expected = [start]
        for shock in noise:
            expected.append(math.exp(-rate) * expected[-1] + shock)
        np.testing.assert_allclose(path, expected, rtol=1e-9, atol=1e-9)
