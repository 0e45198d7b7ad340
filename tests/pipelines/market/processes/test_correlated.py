"""Correlated assets: returns have the matrix asked for, each asset keeps its own law, and episodes know nothing of each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.market.processes.correlated import Correlated, factor_of
from tests.pipelines.market.processes.facts import Fact, at_closes, log_paths, mutant, wrong_facts

MATRIX = ((1.0, 0.7, -0.3), (0.7, 1.0, 0.1), (-0.3, 0.1, 1.0))
VOLATILITY, N_EPISODES, N_BARS, STEPS = 0.01, 2000, 40, 2


def fixed(value: float) -> dict[str, float]:
    return {"low": value, "high": value}


GBM = {"name": "gbm", "start_price": fixed(100.0), "volatility": fixed(VOLATILITY)}
OU = {"name": "ou", "mean_price": fixed(100.0), "reversion": fixed(0.05), "volatility": fixed(VOLATILITY)}


def correlations(values: Any) -> dict[str, Fact]:
    """Facts of values (3, n): three assets' independent samples."""
    n = values.shape[1]
    measured = np.corrcoef(values)
    return {f"{i} with {j}": Fact(measured[i, j], MATRIX[i][j], (1 - MATRIX[i][j] ** 2) / math.sqrt(n)) for i in range(3) for j in range(i)}


def correlated_facts(process: Any) -> dict[str, Fact]:
    returns = np.diff(at_closes(log_paths(process, 3 * N_EPISODES, N_BARS, STEPS), STEPS)).reshape(N_EPISODES, 3, N_BARS)
    by_asset = returns.transpose(1, 0, 2).reshape(3, -1)
    n = by_asset.shape[1]
    facts = correlations(by_asset)
    for asset in range(3):
        facts[f"variance of {asset}"] = Fact(by_asset[asset].var(), VOLATILITY**2, VOLATILITY**2 * math.sqrt(2 / n))
        others = np.corrcoef(returns[:-1, asset].ravel(), returns[1:, (asset + 1) % 3].ravel())[0, 1]
        facts[f"{asset} with the next episode"] = Fact(others, 0.0, 1 / math.sqrt(n))
        later = np.corrcoef(returns[:, asset, :-1].ravel(), returns[:, (asset + 1) % 3, 1:].ravel())[0, 1]
        facts[f"{asset} with the next bar"] = Fact(later, 0.0, 1 / math.sqrt(n))
    return facts


def test_returns_have_the_matrix_and_each_asset_its_own_law() -> None:
    assert wrong_facts(correlated_facts(Correlated(MATRIX, GBM))) == []


def test_the_stationary_starts_of_mean_reverting_assets_are_correlated_too() -> None:
    starts = log_paths(Correlated(MATRIX, OU), 3 * N_EPISODES, 1).log_price[:, 0]
    assert wrong_facts(correlations(starts.reshape(N_EPISODES, 3).T)) == []


@pytest.mark.parametrize("name", ["heston", "garch", "merton", "regimes", "abm"])
def test_any_process_with_paths_is_correlated(name: str) -> None:
    quiet = {"jump_rate": fixed(0.0)} if name == "merton" else {}
    process = Correlated(((1.0, 0.9), (0.9, 1.0)), {"name": name} | quiet)
    paths = log_paths(process, 2000, 30)
    innovations = np.diff(paths.log_price) / paths.step_std
    measured = np.corrcoef(innovations[::2].ravel(), innovations[1::2].ravel())[0, 1]
    assert measured == pytest.approx(0.9, abs=0.02)


def test_a_singular_matrix_gives_assets_that_move_alike() -> None:
    paths = log_paths(Correlated(((1.0, 1.0, -1.0), (1.0, 1.0, -1.0), (-1.0, -1.0, 1.0)), GBM), 3, 50).log_price
    np.testing.assert_array_equal(paths[0], paths[1])
    np.testing.assert_allclose(np.diff(paths[0]) + np.diff(paths[2]), -(VOLATILITY**2), atol=1e-14)


def test_the_factor_is_choleskys() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        loadings = rng.standard_normal((6, rng.integers(2, 8)))
        covariance = loadings @ loadings.T
        scale = np.sqrt(np.diag(covariance))
        matrix = covariance / np.outer(scale, scale)
        np.fill_diagonal(matrix, 1.0)
        factor = factor_of(((matrix + matrix.T) / 2).tolist())
        np.testing.assert_allclose(factor @ factor.T, matrix, atol=1e-6)
        assert np.all(np.triu(factor, 1) == 0)


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        pytest.param("_CorrelatedDraws(draws, self._factor)", "draws", "1 with 0", id="uncorrelated"),
        pytest.param("factor_of(self.correlation))", "np.array(self.correlation))", "variance of 1", id="the matrix itself mixes"),
        pytest.param("factor_of(self.correlation))", "factor_of(self.correlation).T)", "variance of 1", id="transposed"),
        pytest.param("return mixed.reshape", "return mixed.swapaxes(0, 1).reshape", "1 with 0", id="rows mixed up"),
        pytest.param("own[:, other]", "np.roll(own, asset, axis=2)[:, other]", "1 with 0", id="innovations of other bars"),
    ],
)
def test_wrongly_correlated_assets_are_found(old: str, new: str, fact: str) -> None:
    assert fact in wrong_facts(correlated_facts(mutant("correlated", old, new).Correlated(MATRIX, GBM)))
