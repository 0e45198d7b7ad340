"""Heston's model: expected price and variance are exact, shocks are correlated, variance clusters and is never negative."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.market.processes.heston import Heston
from tests.pipelines.market.processes.facts import (
    Fact,
    at_closes,
    autocorrelation,
    fixed,
    from_groups,
    log_paths,
    mean_of,
    mutant,
    replaced,
    wrong_facts,
)

DRIFT, VOLATILITY, START, KAPPA, SPREAD, RHO, N_ROWS, N_BARS, STEPS = 0.001, 0.02, 0.03, 0.05, 0.6, -0.7, 4000, 60, 4
HESTON = fixed(
    start_price=100.0,
    price_drift=DRIFT,
    volatility=VOLATILITY,
    start_volatility=START,
    reversion=KAPPA,
    variance_spread=SPREAD,
    correlation=RHO,
)


def heston_facts(process: Any) -> dict[str, Fact]:
    theta, excess = VOLATILITY**2, START**2 - VOLATILITY**2
    paths = log_paths(process, N_ROWS, N_BARS, STEPS)
    growth = np.exp(paths.log_price[:, -1] - paths.log_price[:, 0])
    expected_sum = theta * N_BARS - excess * math.expm1(-KAPPA * N_BARS) / KAPPA
    variances, steps = paths.step_std**2 * STEPS, np.diff(paths.log_price)
    # What a sub-step's mean variance moves by beyond its reversion, and what the price moves by beyond its drift.
    kept = math.exp(-KAPPA / STEPS)
    shocks = variances[:, 1:] - theta - kept * (variances[:, :-1] - theta)
    moves = steps + (variances / 2 - DRIFT) / STEPS
    n = shocks.size
    last = math.exp(-KAPPA * (N_BARS - 1 / STEPS))
    averaged = STEPS * (1 - kept) / KAPPA
    last_spread = averaged**2 * SPREAD**2 * theta * (2 * START**2 * (last - last**2) + theta * (1 - last) ** 2)
    returns = np.diff(at_closes(log_paths(replaced(process, start_volatility=VOLATILITY), N_ROWS, N_BARS, STEPS), STEPS))
    return {
        "expected price": mean_of(growth, math.exp(DRIFT * N_BARS)),
        "expected variance": mean_of(variances.sum(axis=1) / STEPS, expected_sum),
        "realised variance": mean_of((moves**2).sum(axis=1), expected_sum),
        "variance at the end": mean_of(variances[:, -1], theta + excess * math.exp(-KAPPA * (N_BARS - 0.5 / STEPS))),
        "spread at the end": from_groups(lambda rows: float(rows.var()), variances[:, -1], last_spread),
        "correlation of the shocks": Fact(
            np.corrcoef((shocks / paths.step_std[:, :-1]).ravel(), (moves / paths.step_std)[:, :-1].ravel())[0, 1],
            RHO,
            (1 - RHO**2) / math.sqrt(n),
        ),
        "autocorrelation": from_groups(autocorrelation(1), returns, 0.0),
        "negative or no number": Fact(float(np.sum(~(variances >= 0))), 0.0, 0.0),
    }


@pytest.mark.long
def test_heston_has_its_facts() -> None:
    assert wrong_facts(heston_facts(Heston(**HESTON))) == []


def clustering(process: Any) -> Fact:
    returns = np.diff(at_closes(log_paths(process, N_ROWS, N_BARS, STEPS), STEPS))
    return from_groups(autocorrelation(1), returns**2, 0.0)


@pytest.mark.long
def test_large_returns_follow_large_ones_and_falls_raise_the_variance() -> None:
    process = Heston(**HESTON | fixed(start_volatility=VOLATILITY))
    assert "clustering" in wrong_facts({"clustering": clustering(process)})
    constant = replaced(process, variance_spread=0.0)
    assert wrong_facts({"clustering": clustering(constant)}) == []


@pytest.mark.long
@pytest.mark.parametrize("spread", [1.0, 2.0])
def test_beyond_fellers_condition_the_variance_stays_a_number_and_its_mean_stays_near(spread: float) -> None:
    process = Heston(**HESTON | fixed(start_volatility=VOLATILITY, variance_spread=spread))
    paths = log_paths(process, N_ROWS, N_BARS, STEPS)
    variances = paths.step_std**2 * STEPS
    assert np.all(variances >= 0)
    assert variances.mean() == pytest.approx(VOLATILITY**2, rel=0.02)  # the bias of full truncation
    growth = np.exp(paths.log_price[:, -1] - paths.log_price[:, 0])
    assert wrong_facts({"expected price": mean_of(growth, math.exp(DRIFT * N_BARS))}) == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        pytest.param("returns = step_std *", "returns = variances *", "realised variance", id="variance taken as volatility"),
        pytest.param("rho * variance_noise +", "rho * draws.normal(n_steps) +", "correlation of the shocks", id="shocks uncorrelated"),
        pytest.param("np.sqrt(1.0 - rho**2) * own", "own", "realised variance", id="noise of the price too large"),
        pytest.param(" - variances / 2) * dt", ") * dt", "expected price", id="half the variance is not taken out"),
        pytest.param(
            "reverted = -np.expm1(-reversion * dt)\n    spread",
            "reverted = reversion\n    spread",
            "expected variance",
            id="reversion per sub-step",
        ),
        pytest.param("root(positive) * shock", "shock", "spread at the end", id="shocks without the root of the variance"),
        pytest.param("-np.expm1(-2.0 * reversion * dt)", "-np.expm1(-2.0 * reversion)", "spread at the end", id="shocks per sub-step"),
        pytest.param('["start_volatility"] ** 2', '["volatility"] ** 2', "expected variance", id="starts in the long run"),
        pytest.param("positive = variance * (variance > 0.0)", "positive = variance - 1e-4", "negative or no number", id="not truncated"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_wrong_heston_is_found(old: str, new: str, fact: str) -> None:
    assert fact in wrong_facts(heston_facts(mutant("heston", old, new).Heston(**HESTON)))
