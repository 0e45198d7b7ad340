from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserver.monitoring.action import Action
from policyserver.pipelines.account import Account, AccountConfig
from policyserver.pipelines.features import FEATURES, REGRESSOR_FEATURES, FeatureState
from policyserver.pipelines.forecast.regressor import NO_PREDICTION, Prediction
from policyserver.pipelines.market.bars import Bar
from policyserver.pipelines.prices import PricesConfig, make_source

NAMES = list(FEATURES)


def bar(index: int, close: float) -> Bar:
    return Bar(index, index, close, close, close, close, 1.0)


def observe(closes: list[float], prediction: Prediction = NO_PREDICTION) -> npt.NDArray[np.float32]:
    state = FeatureState()
    for index, close in enumerate(closes):
        state.update(bar(index, close))
    return state.observation(prediction, Account(AccountConfig(), closes[-1]), 0.5)


def test_there_are_ten_documented_features() -> None:
    assert len(FEATURES) == 10
    assert all(len(meaning) > 20 for meaning in FEATURES.values())


@given(
    closes=st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=40),
    mean=st.floats(-1e3, 1e3),
    std=st.floats(0, 1e3),
    equity=st.floats(-1e6, 1e12),
)
def test_observations_are_finite_float32_within_the_space_whatever_the_prices(
    closes: list[float], mean: float, std: float, equity: float
) -> None:
    state = FeatureState()
    for index, close in enumerate(closes):
        state.update(bar(index, close))
    account = Account(AccountConfig(), closes[-1])
    account.cash, account.equity, account.position = equity, equity, 3.0
    observation = state.observation(Prediction(mean, std), account, 1.0)
    assert observation.dtype == np.float32
    assert observation.shape == (10,)
    assert np.all(np.isfinite(observation))
    assert np.all(np.abs(observation) <= 100)
    assert all(math.isfinite(value) for name, value in state.regressor_features().items() if len(closes) > 1 or name != "return_1")


def test_features_do_not_depend_on_the_currency() -> None:
    closes = [100.0 * math.exp(0.01 * math.sin(index)) for index in range(50)]
    np.testing.assert_allclose(observe(closes), observe([close * 7000 for close in closes]), rtol=1e-4, atol=1e-5)


def test_a_constant_price_shows_nothing() -> None:
    observation = dict(zip(NAMES, observe([5.0] * 30), strict=True))
    assert {name for name, value in observation.items() if value != 0} == {"volatility", "time_left"}


def test_features_have_the_values_their_descriptions_say() -> None:
    returns = [0.01, -0.02, 0.005, 0.01, 0.02, -0.01, 0.03]
    logs = np.cumsum([math.log(50.0), *returns])
    observation = dict(zip(NAMES, observe(np.exp(logs).tolist(), Prediction(0.002, 0.01)), strict=True))
    volatility = math.sqrt(np.mean(np.square(returns)))  # fewer bars than the memory: the plain mean
    fast = math.sqrt(8) * volatility
    assert observation["return_1"] == pytest.approx(0.03 / volatility, rel=1e-5)
    assert observation["return_5"] == pytest.approx(sum(returns[-5:]) / (volatility * math.sqrt(5)), rel=1e-5)
    assert observation["distance_fast"] == pytest.approx((logs[-1] - logs.mean()) / fast, rel=1e-5)
    assert observation["distance_slow"] == pytest.approx((logs[-1] - logs.mean()) / (volatility * math.sqrt(32)), rel=1e-5)
    assert observation["volatility"] == pytest.approx(math.log(volatility / 0.01), rel=1e-5)
    assert observation["prediction"] == pytest.approx(2.0)
    assert observation["uncertainty"] == pytest.approx(0.01 / volatility, rel=1e-5)
    assert observation["time_left"] == 0.5


def test_the_portfolio_is_seen() -> None:
    state = FeatureState()
    for index in range(20):
        state.update(bar(index, 100.0 + (index % 2)))
    account = Account(AccountConfig(fee_fraction=0.0, slippage_fraction=0.0), 101.0)
    order = account.order(Action.BUY)
    assert order is not None
    account.fill(order, 101.0)
    account.mark(101.0 * 1.02)
    observation = dict(zip(NAMES, state.observation(NO_PREDICTION, account, 1.0), strict=True))
    assert observation["position"] == pytest.approx(1.0)
    assert observation["unrealised_profit"] == pytest.approx(math.log(1.02) / (state.volatility * math.sqrt(8)), rel=1e-5)


def test_nothing_of_a_bar_but_its_close_and_nothing_of_a_later_bar_is_seen() -> None:
    prices = make_source(PricesConfig(), seed=1).episode("AAA", 0)
    honest, garbled = FeatureState(), FeatureState()
    while (each := prices.next_bar()) is not None and each.index <= 50:
        honest.update(each)
        garbled.update(replace(each, open=math.nan, high=math.inf, low=-1.0, volume=math.nan, time_ns=0))
    account = Account(AccountConfig(), 1.0)
    seen = honest.observation(NO_PREDICTION, account, 0.5).tobytes()
    assert garbled.observation(NO_PREDICTION, account, 0.5).tobytes() == seen
    garbled.update(bar(51, 1e6))
    assert honest.observation(NO_PREDICTION, account, 0.5).tobytes() == seen


@pytest.mark.parametrize("process", ["ou", "gbm", "csv"])
def test_features_have_about_unit_scale_on_simulated_and_on_real_prices(process: Literal["ou", "gbm", "csv"]) -> None:
    spec = importlib.util.find_spec("arch.data.sp500")
    assert spec is not None
    assert spec.origin is not None
    source = make_source(PricesConfig(process=process, csv_files=(Path(spec.origin).with_name("sp500.csv.gz"),)), seed=2)
    rows = []
    for index in range(30):
        prices, state = source.episode(source.symbols[0], index), FeatureState()
        while (each := prices.next_bar()) is not None:
            state.update(each)
            if each.index >= 0:
                rows.append(state.observation(NO_PREDICTION, Account(AccountConfig(), each.close), 0.5))
    scale = dict(zip(NAMES, np.sqrt(np.mean(np.square(rows), axis=0)), strict=True))
    for name in ("return_1", "return_5", "distance_fast", "distance_slow", "volatility"):
        assert 0.1 < scale[name] < 3, f"{name}: {scale[name]}"


def test_the_regressor_gets_the_features_it_is_promised() -> None:
    state = FeatureState()
    state.update(bar(0, 100.0))
    state.update(bar(1, 101.0))
    features = state.regressor_features()
    assert tuple(features) == REGRESSOR_FEATURES
    assert features["return_1"] == state.last_return == pytest.approx(math.log(1.01))
