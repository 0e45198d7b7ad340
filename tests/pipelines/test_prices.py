"""An episode's prices are a function of seed, symbol and index, are dripped bar by bar, and come from settings that make sense."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import pytest

from policyserver.pipelines.market.bars import Bars
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.priors import Prior
from policyserver.pipelines.price_processes import GbmConfig, OuConfig
from policyserver.pipelines.prices import PricesConfig, PriceSource, episode_rng, make_source


def episode(source: PriceSource, number: int = 0) -> Episode:
    return source.episodes([number])[0]


def columns(played: Episode) -> bytes:
    return played.bars.time_ns.tobytes() + played.bars.bars.tobytes()


@pytest.mark.parametrize("process", ["ou", "gbm"])
def test_an_episode_depends_on_seed_and_number_only_whatever_the_threads(process: Literal["ou", "gbm"]) -> None:
    config = PricesConfig(process=process, bars_per_episode=20, warmup_bars=5)
    numbers = list(range(100))
    alone = [episode(make_source(config, seed=7), number) for number in numbers]
    shared = make_source(config, seed=7)
    with ThreadPoolExecutor(8) as pool:
        slices = pool.map(lambda first: shared.episodes(numbers[first::8]), range(8))
    together = {each.number: each for part in slices for each in part}
    for number, expected in enumerate(alone):
        assert columns(expected) == columns(together[number])
        assert expected.bars.parameters == together[number].bars.parameters
        assert expected.symbols == together[number].symbols == (config.symbols[number % 4],)
    assert len({columns(each) for each in alone}) == len(numbers)
    assert columns(episode(make_source(config, seed=8))) != columns(alone[0])


def test_the_parameters_of_an_episode_are_drawn_from_the_priors_and_recorded() -> None:
    source = make_source(PricesConfig(bars_per_episode=1, warmup_bars=1), seed=1)
    drawn = [each.bars.parameters for each in source.episodes(range(300))]
    assert set(drawn[0]) == {"mean_price", "reversion", "volatility"}
    reversions = np.array([parameters["reversion"] for parameters in drawn])
    assert reversions.min() >= 0.04
    assert reversions.max() <= 0.0625
    assert abs(np.log(reversions).mean() - np.log(0.05)) < 4 * np.log(0.0625 / 0.04) / np.sqrt(12 * 300)
    assert len(set(reversions)) == 300


def test_fixing_one_parameter_leaves_the_noise_of_the_path_as_it_was() -> None:
    free = episode(make_source(PricesConfig(process="gbm"), seed=3)).bars
    fixed_config = PricesConfig(process="gbm", gbm=GbmConfig(start_price=Prior.fixed(1.0)))
    fixed = episode(make_source(fixed_config, seed=3)).bars
    np.testing.assert_allclose(fixed.bars[..., :4], free.bars[..., :4] / free.parameters["start_price"], rtol=1e-12)


def test_bar_times_are_one_interval_apart() -> None:
    source = make_source(PricesConfig(bar_interval_s=3600.0, bars_per_episode=4, warmup_bars=1), seed=1)
    assert set(np.diff(episode(source).bars.time_ns)) == {3600 * 10**9}


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
