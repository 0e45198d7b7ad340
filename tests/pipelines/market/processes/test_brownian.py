"""Geometric Brownian motion has independent normal returns, arithmetic Brownian motion independent normal changes of the price."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.processes.abm import ArithmeticBrownianMotion
from policyserver.pipelines.market.processes.gbm import GeometricBrownianMotion
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

DRIFT, VOLATILITY, N_ROWS, N_BARS, STEPS = 0.002, 0.03, 4000, 50, 4


def of_increments(increments: FloatArray, levels: FloatArray, mean: float, std: float) -> dict[str, Fact]:
    """Independent and normal; the standard errors are those of a normal sample."""
    n, values = increments.size, increments.ravel()
    return {
        "mean": Fact(values.mean(), mean, std / math.sqrt(n)),
        "variance": Fact(values.var(), std**2, std**2 * math.sqrt(2 / n)),
        "skewness": Fact(stats.skew(values), 0.0, math.sqrt(6 / n)),
        "kurtosis": Fact(stats.kurtosis(values), 0.0, math.sqrt(24 / n)),
        "autocorrelation": Fact(autocorrelation(1)(increments), 0.0, 1 / math.sqrt(n)),
        "autocorrelation of sizes": Fact(autocorrelation(1)(np.abs(increments - mean)), 0.0, 1 / math.sqrt(n)),
        "size apart from the price": Fact(np.corrcoef(levels.ravel(), np.abs(values - mean))[0, 1], 0.0, 1 / math.sqrt(n)),
    }


def gbm_facts(process: Any) -> dict[str, Fact]:
    path = at_closes(log_paths(process, N_ROWS, N_BARS, STEPS), STEPS)
    growth = np.exp(path[:, -1] - path[:, 0])
    variance = math.exp(2 * DRIFT * N_BARS) * math.expm1(VOLATILITY**2 * N_BARS)
    return of_increments(np.diff(path), path[:, :-1], DRIFT - VOLATILITY**2 / 2, VOLATILITY) | {
        "expected price": mean_of(growth, math.exp(DRIFT * N_BARS)),
        "variance of the price": from_groups(lambda values: float(values.var()), growth, variance),
    }


def abm_facts(process: Any) -> dict[str, Fact]:
    prices = np.exp(at_closes(log_paths(process, N_ROWS, N_BARS, STEPS), STEPS)) / 100.0
    return of_increments(np.diff(prices), prices[:, :-1], DRIFT, 0.01) | {
        "expected price": mean_of(prices[:, -1], 1 + DRIFT * N_BARS),
        "variance of the price": Fact(prices[:, -1].var(), 1e-4 * N_BARS, 1e-4 * N_BARS * math.sqrt(2 / N_ROWS)),
    }


GBM = fixed(start_price=100.0, price_drift=DRIFT, volatility=VOLATILITY)
ABM = fixed(start_price=100.0, price_drift=DRIFT, volatility=0.01)


@pytest.mark.long
def test_gbm_has_the_facts_of_geometric_brownian_motion() -> None:
    assert wrong_facts(gbm_facts(GeometricBrownianMotion(**GBM))) == []


@pytest.mark.long
def test_abm_has_the_facts_of_arithmetic_brownian_motion() -> None:
    assert wrong_facts(abm_facts(ArithmeticBrownianMotion(**ABM))) == []


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        pytest.param("volatility * math.sqrt(dt)", "volatility * dt", "variance", id="noise grows as time, not as its root"),
        pytest.param("volatility * math.sqrt(dt)", "variance * math.sqrt(dt)", "variance", id="variance taken as volatility"),
        pytest.param(" - 0.5 * variance", "", "expected price", id="half the variance is not taken out"),
        pytest.param('["price_drift"] - 0.5 * variance) * dt', '["price_drift"] - 0.5 * variance)', "mean", id="drift per sub-step"),
        pytest.param("draws.normal(n_steps)", "np.repeat(draws.normal(n_steps // 4), 4, axis=1)", "variance", id="sub-steps alike"),
    ],
)
def test_a_wrong_gbm_is_found(old: str, new: str, fact: str) -> None:
    changed = mutant("gbm", old, new)
    changed.np = np
    assert fact in wrong_facts(gbm_facts(changed.GeometricBrownianMotion(**GBM)))


@pytest.mark.long
def test_a_wrong_kind_of_brownian_motion_is_found() -> None:
    arithmetic, geometric = ArithmeticBrownianMotion(**GBM), GeometricBrownianMotion(**ABM)
    assert "size apart from the price" in wrong_facts(gbm_facts(arithmetic))
    assert "size apart from the price" in wrong_facts(abm_facts(geometric))


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        pytest.param("* math.sqrt(dt)", "* dt", "variance", id="noise grows as time, not as its root"),
        pytest.param('["price_drift"] * dt', '["price_drift"]', "expected price", id="drift per sub-step"),
    ],
)
def test_a_wrong_abm_is_found(old: str, new: str, fact: str) -> None:
    assert fact in wrong_facts(abm_facts(mutant("abm", old, new).ArithmeticBrownianMotion(**ABM)))
