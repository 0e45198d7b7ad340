"""Merton's jump diffusion: a compensated drift, and the variance, skewness and kurtosis that its jumps add."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from policyserver.pipelines.market.processes.merton import MertonJumpDiffusion
from tests.pipelines.market.processes.facts import (
    Fact,
    at_closes,
    autocorrelation,
    fixed,
    from_groups,
    log_paths,
    mean_of,
    mutant,
    wrong_facts,
)

DRIFT, VOLATILITY, RATE, MEAN, STD, N_ROWS, N_BARS, STEPS = 0.001, 0.01, 0.2, -0.02, 0.03, 8000, 25, 4
MERTON = fixed(start_price=100.0, price_drift=DRIFT, volatility=VOLATILITY, jump_rate=RATE, jump_mean=MEAN, jump_std=STD)


def merton_facts(process: Any) -> dict[str, Fact]:
    path = at_closes(log_paths(process, N_ROWS, N_BARS, STEPS), STEPS)
    returns = np.diff(path)
    variance = VOLATILITY**2 + RATE * (MEAN**2 + STD**2)
    compensated = DRIFT - VOLATILITY**2 / 2 - RATE * math.expm1(MEAN + STD**2 / 2) + RATE * MEAN
    return {
        "mean": mean_of(returns, compensated),
        "variance": from_groups(lambda rows: float(rows.var()), returns, variance),
        "variance of a path": from_groups(lambda ends: float(ends.var()), path[:, -1], N_BARS * variance),
        "skewness": from_groups(
            lambda rows: float(stats.skew(rows, axis=None)), returns, RATE * (MEAN**3 + 3 * MEAN * STD**2) / variance**1.5
        ),
        "kurtosis": from_groups(
            lambda rows: float(stats.kurtosis(rows, axis=None)), returns, RATE * (MEAN**4 + 6 * MEAN**2 * STD**2 + 3 * STD**4) / variance**2
        ),
        "autocorrelation": Fact(autocorrelation(1)(returns), 0.0, 1 / math.sqrt(returns.size)),
        "expected price": mean_of(np.exp(path[:, -1] - path[:, 0]), math.exp(DRIFT * N_BARS)),
    }


@pytest.mark.long
def test_merton_has_its_facts() -> None:
    assert wrong_facts(merton_facts(MertonJumpDiffusion(**MERTON))) == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        pytest.param(" - compensator) * dt", ") * dt", "expected price", id="jumps not compensated"),
        pytest.param("np.expm1(mean + std**2 / 2)", "10 * np.expm1(mean) / 10 - 5 * std**2", "expected price", id="compensated wrongly"),
        pytest.param("rng.poisson(rate * dt * n_steps)", "rng.poisson(rate * n_steps)", "variance", id="jumps per sub-step"),
        pytest.param("mean + std * rng", "mean + std**2 * rng", "variance", id="variance of jumps taken as their deviation"),
        pytest.param("mean + std * rng", "-mean + std * rng", "skewness", id="jumps to the other side"),
        pytest.param(
            "rng.poisson(rate * dt * n_steps)", "round(rate * dt * n_steps) * (rng.random() < 2)", "variance of a path", id="a fixed number"
        ),
        pytest.param("returns += draws.each(jumps", "returns += 0.0 * draws.each(jumps", "kurtosis", id="no jumps"),
        pytest.param("volatility * math.sqrt(dt)", "volatility * dt", "variance", id="noise grows as time, not as its root"),
    ],
)
def test_a_wrong_merton_is_found(old: str, new: str, fact: str) -> None:
    assert fact in wrong_facts(merton_facts(mutant("merton", old, new).MertonJumpDiffusion(**MERTON)))
