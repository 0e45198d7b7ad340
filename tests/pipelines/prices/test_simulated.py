"""A simulated episode is a function of seed, symbols and number, whatever the threads; its parameters are drawn and recorded."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.market.bars import Bars
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.processes import PROCESSES
from policyserver.pipelines.prices import PricesConfig, PriceSource, make_source
from policyserver.pipelines.prices.episode_rng import episode_rng

SERIES = {"correlation": [[1.0, 0.8], [0.8, 1.0]]}
CHOICES: dict[str, Any] = {name: name for name in PROCESSES.shipped if name not in ("bootstrap", "correlated", "mixture")} | {
    "mixture": {"name": "mixture", "parts": [{"process": "gbm"}, {"process": "heston"}]}
}


def episode(source: PriceSource, number: int = 0) -> Episode:
    return source.episodes([number])[0]


def bits(played: Episode) -> bytes:
    return played.bars.time_ns.tobytes() + played.bars.bars.tobytes()


@pytest.mark.long
@pytest.mark.parametrize("process", CHOICES)
@pytest.mark.parametrize("together", [1, 3])
def test_an_episode_depends_on_seed_and_number_only_whatever_the_threads(process: str, together: int) -> None:
    config = PricesConfig(process=CHOICES[process], bars_per_episode=20, warmup_bars=5, symbols_per_episode=together)
    numbers = list(range(24))
    alone = [episode(make_source(config, seed=7), number) for number in numbers]
    shared = make_source(config, seed=7)
    with ThreadPoolExecutor(8) as pool:
        slices = pool.map(lambda first: shared.episodes(numbers[first::8]), range(8))
    beside = {each.number: each for part in slices for each in part}
    for number, expected in enumerate(alone):
        assert bits(expected) == bits(beside[number])
        assert expected.bars.parameters == beside[number].bars.parameters
        assert expected.symbols == beside[number].symbols
    assert len({bits(each) for each in alone}) == len(numbers)
    assert bits(episode(make_source(config, seed=8))) != bits(alone[0])


def test_the_demos_prices_are_those_of_the_numbers_recorded_for_them() -> None:
    played = episode(make_source(PricesConfig(), seed=1), 5)
    closes = played.bars.bars[[0, 200, 399], 0, 3]
    assert played.id == "BBB-5"
    np.testing.assert_allclose(closes, [56.15378606810357, 54.597621773042164, 55.835923684036885], rtol=1e-13)


@pytest.mark.parametrize(("n_symbols", "together"), [(1, 1), (4, 1), (5, 3), (7, 5), (3, 3), (50, 2)])
def test_symbols_take_turns_in_rounds_and_each_is_traded_as_often(n_symbols: int, together: int) -> None:
    symbols = tuple(f"S{number}" for number in range(n_symbols))
    source = make_source(PricesConfig(symbols=symbols, symbols_per_episode=together, bars_per_episode=2, warmup_bars=2), seed=1)
    assert source.symbols == symbols
    played = source.episodes(range(2 * n_symbols))
    in_a_row = [symbol for each in played for symbol in each.symbols]
    assert in_a_row == [symbols[place % n_symbols] for place in range(len(in_a_row))]
    assert set(Counter(in_a_row).values()) == {2 * together}
    assert all(len(set(each.symbols)) == together for each in played), "no symbol stands twice in an episode"


def test_an_episode_of_several_symbols_has_the_bars_of_each_and_their_parameters() -> None:
    config = PricesConfig(symbols=("AAA", "BBB", "CCC"), symbols_per_episode=3, bars_per_episode=30, warmup_bars=10)
    source = make_source(config, seed=4)
    played = episode(source, 2)
    assert (source.slots, played.symbols, played.bars.bars.shape) == (("AAA", "BBB", "CCC"),) * 2 + ((40, 3, 5),)
    assert played.id == "AAA+BBB+CCC-2"
    assert set(played.bars.parameters) == {
        f"{symbol}.{name}" for symbol in config.symbols for name in ("mean_price", "reversion", "volatility")
    }
    assert len({column.tobytes() for column in played.bars.bars.swapaxes(0, 1)}) == 3, "each symbol has a path of its own"


def test_correlated_assets_are_the_symbols_of_an_episode() -> None:
    process = {"name": "correlated", "process": "gbm", **SERIES}
    config = PricesConfig(process=process, symbols=("AAA", "BBB"), symbols_per_episode=2, bars_per_episode=300, warmup_bars=1)
    played = make_source(config, seed=4).episodes(range(20))
    correlations = [np.corrcoef(np.diff(np.log(each.bars.bars[:, :, 3]), axis=0).T)[0, 1] for each in played]
    # Of 300 returns the standard error of a correlation of 0.8 is 0.36 / sqrt(300); of the mean of 20 episodes sqrt(20) times less.
    assert np.mean(correlations) == pytest.approx(0.8, abs=4 * 0.36 / np.sqrt(300 * 20))


@pytest.mark.parametrize(
    ("together", "slots"), [(1, ("price",)), (2, ("price_1", "price_2")), (3, ("AAA", "BBB", "CCC"))], ids=["one", "some", "all"]
)
def test_what_is_observed_is_called_after_the_symbols_where_every_episode_has_the_same(together: int, slots: tuple[str, ...]) -> None:
    assert make_source(PricesConfig(symbols=("AAA", "BBB", "CCC"), symbols_per_episode=together), seed=1).slots == slots


def test_the_parameters_of_an_episode_are_drawn_from_the_priors_and_recorded() -> None:
    source = make_source(PricesConfig(bars_per_episode=1, warmup_bars=1), seed=1)
    drawn = [each.bars.parameters for each in source.episodes(range(300))]
    assert set(drawn[0]) == {"mean_price", "reversion", "volatility"}
    reversions = np.array([parameters["reversion"] for parameters in drawn])
    assert reversions.min() >= 0.04
    assert reversions.max() <= 0.0625
    assert abs(np.log(reversions).mean() - np.log(0.05)) < 4 * np.log(0.0625 / 0.04) / np.sqrt(12 * 300)
    assert len(set(reversions)) == 300


@pytest.mark.long
def test_a_mixture_draws_its_process_for_each_episode() -> None:
    parts = [{"process": "gbm", "weight": 3.0}, {"process": "heston", "weight": 1.0}]
    source = make_source(PricesConfig(process={"name": "mixture", "parts": parts}, bars_per_episode=1, warmup_bars=1), seed=1)
    drawn = [each.bars.parameters for each in source.episodes(range(400))]
    assert all(("heston.reversion" in parameters) == (parameters["part"] == 1.0) for parameters in drawn)
    assert sum(parameters["part"] for parameters in drawn) / 400 == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 400))


def test_fixing_one_parameter_leaves_the_noise_of_the_path_as_it_was() -> None:
    free = episode(make_source(PricesConfig(process="gbm"), seed=3)).bars
    fixed = episode(make_source(PricesConfig(process={"name": "gbm", "start_price": {"low": 1.0, "high": 1.0}}), seed=3)).bars
    np.testing.assert_allclose(fixed.bars[..., :4], free.bars[..., :4] / free.parameters["start_price"], rtol=1e-12)


def test_bar_times_are_one_interval_apart() -> None:
    source = make_source(PricesConfig(bar_interval_s=3600.0, bars_per_episode=4, warmup_bars=1), seed=1)
    assert set(np.diff(episode(source).bars.time_ns)) == {3600 * 10**9}


def test_each_purpose_has_its_own_random_numbers() -> None:
    assert episode_rng(1, "AAA", 0).random() != episode_rng(1, "AAA", 0, purpose="random actions").random()


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="expected columns of one length"):
        Bars(np.arange(2), *(np.ones(3),) * 5)
