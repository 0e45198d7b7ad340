"""Markov regimes: stays are geometric, shares are stationary from the first bar, and returns have the moments of the chain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.market.processes.regimes import MarkovRegimes, Regime
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

N_ROWS, N_BARS, STEPS = 3000, 100, 2
LEAVE, RETURN = 0.1, 0.3
CALM, WILD = (0.01, 0.012), (0.03, -0.02)
THREE = ((0.8, 0.2, 0.0), (0.1, 0.8, 0.1), (0.0, 0.3, 0.7))


def two_regimes(kind: Any = MarkovRegimes, regime: Any = Regime) -> Any:
    regimes = tuple(regime(**fixed(volatility=volatility, price_drift=drift)) for volatility, drift in (CALM, WILD))
    return kind(regimes=regimes, transitions=((1 - LEAVE, LEAVE), (RETURN, 1 - RETURN)), **fixed(start_price=100.0))


def two_regime_facts(process: Any) -> dict[str, Fact]:
    paths = log_paths(process, N_ROWS, N_BARS, STEPS)
    states = (paths.step_std[:, ::STEPS] * math.sqrt(STEPS) > 0.02).astype(np.float64)
    returns = np.diff(at_closes(paths, STEPS))
    stayed = (states[:, :-4] + states[:, 1:-3] + states[:, 2:-2] + states[:, 3:-1]) == 0
    wild = LEAVE / (LEAVE + RETURN)
    means = [drift - volatility**2 / 2 for volatility, drift in (CALM, WILD)]
    between = wild * (1 - wild) * (means[0] - means[1]) ** 2
    variance = (1 - wild) * CALM[0] ** 2 + wild * WILD[0] ** 2 + between
    facts = {
        "share at the start": mean_of(states[:, 0], wild),
        "share at the end": mean_of(states[:, -1], wild),
        "mean": from_groups(lambda rows: float(rows.mean()), returns, (1 - wild) * means[0] + wild * means[1]),
        "variance": from_groups(lambda rows: float(rows.var()), returns, variance),
        "growth in regime 0": mean_of(np.exp(returns[states == 0]), math.exp(CALM[1])),
        "growth in regime 1": mean_of(np.exp(returns[states == 1]), math.exp(WILD[1])),
        "leaves regime 0": mean_of(states[:, 1:][states[:, :-1] == 0], LEAVE),
        "leaves regime 0 after 4 bars": mean_of(states[:, 4:][stayed], LEAVE),
    }
    for lag in (1, 3):
        facts[f"autocorrelation at {lag}"] = from_groups(autocorrelation(lag), returns, between * (1 - LEAVE - RETURN) ** lag / variance)
    return facts


@pytest.mark.long
def test_two_regimes_have_their_facts() -> None:
    assert wrong_facts(two_regime_facts(two_regimes())) == []


@pytest.mark.long
def test_three_regimes_follow_their_matrix_from_the_stationary_law() -> None:
    process = MarkovRegimes(regimes=(Regime(), Regime(), Regime()), transitions=THREE)
    states = process.states(np.random.default_rng(1).random((4000, 50)))
    expected = np.linalg.matrix_power(np.array(THREE), 500)[0]
    np.testing.assert_allclose(process.stationary(), expected, atol=1e-12)
    facts = {f"share of {i} at {bar}": mean_of((states[:, bar] == i) * 1.0, expected[i]) for i in range(3) for bar in (0, 49)}
    before, after = states[:, :-1].ravel(), states[:, 1:].ravel()
    for i in range(3):
        for j in range(3):
            facts[f"{i} to {j}"] = mean_of((after[before == i] == j) * 1.0, THREE[i][j])
    assert wrong_facts(facts) == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        pytest.param("np.cumsum(np.array(self.transitions)", "np.cumsum(np.array(self.transitions).T", "share at the end", id="columns"),
        pytest.param("states = [first]", "states = [0]", "share at the start", id="starts in regime 0"),
        pytest.param(
            "uniform[:, 1:, None]",
            "(uniform[:, :1] + 0 * uniform[:, 1:])[:, :, None]",
            "autocorrelation at 3",
            id="one number for all bars",
        ),
        pytest.param("bar + states[-1]", "bar", "share at the end", id="no memory"),
        pytest.param("volatility * np.sqrt(dt)", "volatility * dt", "variance", id="noise grows as time, not as its root"),
        pytest.param(" - volatility**2 / 2", "", "growth in regime 1", id="half the variance is not taken out"),
        pytest.param('of_steps("price_drift")', 'of_steps("price_drift").mean()', "autocorrelation at 1", id="one drift for all"),
    ],
)
def test_wrong_regimes_are_found(old: str, new: str, fact: str) -> None:
    changed = mutant("regimes", old, new)
    assert fact in wrong_facts(two_regime_facts(two_regimes(changed.MarkovRegimes, changed.Regime)))
