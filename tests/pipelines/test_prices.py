from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import pytest

from policyserver.pipelines.market.bars import Bars
from policyserver.pipelines.market.priors import Prior
from policyserver.pipelines.price_processes import GbmConfig, OuConfig
from policyserver.pipelines.prices import EpisodePrices, PricesConfig, episode_rng, make_source


def columns(prices: EpisodePrices) -> bytes:
    return b"".join(getattr(prices.bars, name).tobytes() for name in Bars.__slots__)


@pytest.mark.parametrize("process", ["ou", "gbm"])
def test_an_episode_depends_on_seed_symbol_and_index_only_whatever_the_threads(process: Literal["ou", "gbm"]) -> None:
    config = PricesConfig(process=process, bars_per_episode=20, warmup_bars=5)
    jobs = [(symbol, index) for index in range(25) for symbol in config.symbols]
    source = make_source(config, seed=7)
    alone = {job: source.episode(*job) for job in jobs}
    shared = make_source(config, seed=7)
    with ThreadPoolExecutor(8) as pool:
        together = dict(zip(jobs[::-1], pool.map(lambda job: shared.episode(*job), jobs[::-1]), strict=True))
    for job in jobs:
        assert columns(alone[job]) == columns(together[job])
        assert alone[job].parameters == together[job].parameters
    assert len({columns(prices) for prices in alone.values()}) == len(jobs)
    assert columns(make_source(config, seed=8).episode("AAA", 0)) != columns(alone["AAA", 0])


def test_the_parameters_of_an_episode_are_drawn_from_the_priors_and_recorded() -> None:
    source = make_source(PricesConfig(bars_per_episode=1, warmup_bars=1), seed=1)
    drawn = [source.episode("AAA", index).parameters for index in range(300)]
    assert set(drawn[0]) == {"mean_price", "reversion", "volatility"}
    reversions = np.array([parameters["reversion"] for parameters in drawn])
    assert reversions.min() >= 0.04
    assert reversions.max() <= 0.0625
    assert abs(np.log(reversions).mean() - np.log(0.05)) < 4 * np.log(0.0625 / 0.04) / np.sqrt(12 * 300)
    assert len(set(reversions)) == 300


def test_fixing_one_parameter_leaves_the_noise_of_the_path_as_it_was() -> None:
    free = make_source(PricesConfig(process="gbm"), seed=3).episode("AAA", 0)
    fixed_config = PricesConfig(process="gbm", gbm=GbmConfig(start_price=Prior.fixed(1.0)))
    fixed = make_source(fixed_config, seed=3).episode("AAA", 0)
    np.testing.assert_allclose(fixed.bars.close, free.bars.close / free.parameters["start_price"], rtol=1e-12)


def test_bars_are_dripped_in_order_and_the_first_action_is_taken_at_bar_zero() -> None:
    prices = make_source(PricesConfig(bars_per_episode=3, warmup_bars=2), seed=1).episode("BBB", 4)
    dripped = []
    while (bar := prices.next_bar()) is not None:
        dripped.append(bar)
    assert [bar.index for bar in dripped] == [-1, 0, 1, 2, 3]
    assert [bar.close for bar in dripped] == prices.bars.close.tolist()
    assert prices.n_steps == 3
    assert prices.next_bar() is None
    assert (prices.symbol, prices.episode_index, prices.process) == ("BBB", 4, "ou")


def test_bar_times_are_one_interval_apart() -> None:
    prices = make_source(PricesConfig(bar_interval_s=3600.0, bars_per_episode=4, warmup_bars=1), seed=1).episode("AAA", 0)
    assert set(np.diff(prices.bars.time_ns)) == {3600 * 10**9}


def test_each_purpose_has_its_own_random_numbers() -> None:
    assert episode_rng(1, "AAA", 0).random() != episode_rng(1, "AAA", 0, purpose="random actions").random()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"warmup_bars": 0}, r"^argument of PricesConfig: warmup_bars: expected at least 1, received 0"),
        ({"bars_per_episode": 0}, r"^argument of PricesConfig: bars_per_episode"),
        ({"steps_per_bar": 0}, r"^argument of PricesConfig: steps_per_bar"),
        ({"bar_interval_s": 0.0}, r"^argument of PricesConfig: bar_interval_s"),
        ({"process": "heston"}, r"^argument of PricesConfig: process: expected ou\|gbm\|csv, received 'heston'"),
        ({"process": "csv"}, r"^argument of PricesConfig: csv_files: expected at least one file"),
        ({"symbols": ()}, r"^argument of PricesConfig: symbols"),
        (
            {"bar_interval_s": 1e300},
            r"^argument of PricesConfig: bar_interval_s: expected 400 bars within 6e\+09 s, received 1e\+300",
        ),
        ({"bar_interval_s": math.nan}, r"^argument of PricesConfig: bar_interval_s"),
        (
            {"process": "gbm", "gbm": GbmConfig(volatility=Prior.fixed(1.0))},
            r"^argument of PricesConfig: gbm\.volatility: expected prices from 1e-100",
        ),
        (
            {"process": "gbm", "gbm": GbmConfig(price_drift=Prior(-9.0, 0.0))},
            r"^argument of PricesConfig: gbm\.price_drift: .* 400 bars, received up to 9 per bar",
        ),
        ({"ou": OuConfig(reversion=Prior.fixed(1e-12))}, r"^argument of PricesConfig: ou\.volatility: .* with a reversion of 1e-12"),
        ({"symbols": ("A", "A")}, r"^argument of PricesConfig: symbols"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_by_field(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PricesConfig(**arguments)  # type: ignore[arg-type]


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="expected columns of one length"):
        Bars(np.arange(2), *(np.ones(3),) * 5)
