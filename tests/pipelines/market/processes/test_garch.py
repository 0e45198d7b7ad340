"""GARCH(1,1): the variance is that of the long run, squares are correlated as theory says, and innovations have the law asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.processes.garch import Garch
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

DRIFT, VOLATILITY, ALPHA, BETA, DEGREES, N_ROWS, N_BARS, BURN_IN, STEPS = 0.0005, 0.03, 0.1, 0.8, 9.0, 1000, 250, 50, 2
GARCH = fixed(start_price=100.0, price_drift=DRIFT, volatility=VOLATILITY, alpha=ALPHA, beta=BETA, degrees_of_freedom=DEGREES)


def innovations_of(returns: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return innovations and variances, by the recursion run over the returns alone."""
    variance = np.full(len(returns), VOLATILITY**2)
    innovations, variances = np.empty_like(returns), np.empty_like(returns)
    for bar in range(returns.shape[1]):
        shock = returns[:, bar] - (DRIFT - variance / 2)
        innovations[:, bar], variances[:, bar] = shock / np.sqrt(variance), variance
        variance = VOLATILITY**2 * (1 - ALPHA - BETA) + ALPHA * shock**2 + BETA * variance
    return innovations, variances


def garch_facts(process: Any) -> dict[str, Fact]:
    path = at_closes(log_paths(process, N_ROWS, N_BARS, STEPS), STEPS)
    returns = np.diff(path)
    innovations, variances = innovations_of(returns)
    settled = returns[:, BURN_IN:] - (DRIFT - variances[:, BURN_IN:] / 2)
    kept = ALPHA + BETA
    innovation_kurtosis = 3.0 if process.innovations == "normal" else 3.0 * (DEGREES - 2) / (DEGREES - 4)
    kurtosis = innovation_kurtosis * (1 - kept**2) / (1 - kept**2 - (innovation_kurtosis - 1) * ALPHA**2)
    first = ALPHA * (1 - ALPHA * BETA - BETA**2) / (1 - 2 * ALPHA * BETA - BETA**2)
    facts = {
        "variance": from_groups(lambda rows: float(rows.var()), settled, VOLATILITY**2),
        "kurtosis": from_groups(lambda rows: float(stats.kurtosis(rows, axis=None, fisher=False)), settled, kurtosis),
        "autocorrelation": from_groups(autocorrelation(1), settled, 0.0),
        "variance of the innovations": mean_of(innovations**2, 1.0),
        "squares of the innovations": from_groups(autocorrelation(1), innovations**2, 0.0),
        "growth of a bar": mean_of(np.exp(returns), math.exp(DRIFT)),
    }
    for lag in (1, 2, 10):
        facts[f"autocorrelation of squares at {lag}"] = from_groups(autocorrelation(lag), settled**2, first * kept ** (lag - 1))
    law = stats.norm() if process.innovations == "normal" else stats.t(DEGREES, scale=math.sqrt((DEGREES - 2) / DEGREES))
    # The largest distance of a sample's distribution function times sqrt(n) passes 2.5 once in 130,000 samples.
    sample = innovations.ravel()[:50_000]
    distance = stats.kstest(sample, law.cdf).statistic * math.sqrt(len(sample))
    return facts | {"law of the innovations": Fact(distance, 0.0, 2.5 / 4)}


@pytest.mark.long
@pytest.mark.parametrize("innovations", ["normal", "t"])
def test_garch_has_its_facts(innovations: Any) -> None:
    assert wrong_facts(garch_facts(Garch(**GARCH, innovations=innovations))) == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("innovations", "old", "new", "fact"),
    [
        pytest.param(
            "normal", "alpha[:, None] * squares + beta", "beta[:, None] * squares + alpha", "variance of the innovations", id="weights"
        ),
        pytest.param("normal", "variance = omega + factor * variance", "pass", "autocorrelation of squares at 1", id="constant variance"),
        pytest.param("normal", "(1.0 - alpha - beta)\n", "(1.0 - beta)\n", "variance", id="long-run variance"),
        pytest.param("normal", "sum(axis=2) ** 2 / steps_per_bar", "sum(axis=2) ** 2", "variance", id="square of a bar per sub-step"),
        pytest.param(
            "normal", "normal.sum(axis=2)", "normal[:, :, 0] * np.sqrt(2)", "squares of the innovations", id="square of a sub-step"
        ),
        pytest.param(
            "normal", "widths * variances / steps_per_bar", "widths * variances", "variance", id="a bar's variance for each sub-step"
        ),
        pytest.param(
            "normal", "np.sqrt(widths * variances / steps_per_bar)", "widths * variances * 50", "variance", id="variance as volatility"
        ),
        pytest.param("normal", " - variances / 2) / steps", ") / steps", "growth of a bar", id="half the variance is not taken out"),
        pytest.param("t", "(degrees - 2.0) / np", "degrees / np", "variance of the innovations", id="t not of unit variance"),
        pytest.param(
            "t", "return draws.each(widths, degrees_of_freedom)", "return np.ones((len(draws), n_bars))", "kurtosis", id="normal for t"
        ),
    ],
)
def test_a_wrong_garch_is_found(innovations: str, old: str, new: str, fact: str) -> None:
    assert fact in wrong_facts(garch_facts(mutant("garch", old, new).Garch(**GARCH, innovations=innovations)))
