"""Assets that are drawn together from recorded bars keep their correlation, now and a bar later, and a time is one time for all of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.common.settings import SettingsError
from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.market.processes.bootstrap import StationaryBootstrap
from policyserver.pipelines.market.processes.draws import Draws
from policyserver.pipelines.market.processes.process import draw_bars
from policyserver.pipelines.prices import PricesConfig, make_source
from tests.pipelines.market.processes.facts import Fact, fixed, from_groups, mean_of, mutant, wrong_facts
from tests.pipelines.recorded_prices import FIRST_BAR_S, write_columns

N_RECORDED, N_EPISODES, N_BARS, BLOCK = 150, 2000, 60, 6.0
SYMBOLS = ("AAA", "BBB", "CCC")


def recorded_returns() -> FloatArray:
    """Returns of three assets, (3, n): the second moves with the first, the third against it and a bar later."""
    rng = np.random.default_rng(7)
    common = 0.01 * rng.standard_normal(N_RECORDED + 1)
    own = 0.004 * rng.standard_normal((3, N_RECORDED))
    return np.stack((common[1:], common[1:], -common[:-1])) + own


RETURNS = recorded_returns()


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> CatalogConfig:
    folder = tmp_path_factory.mktemp("bars")
    for symbol, returns in zip(SYMBOLS, RETURNS, strict=True):
        closes = 100.0 * np.exp(np.append(0.0, np.cumsum(returns)))
        write_columns(folder / f"{symbol}.csv", close=closes, volume=np.arange(N_RECORDED + 1).astype(np.float64))
    return CatalogConfig((str(folder),))


def joint_facts(process: Any) -> dict[str, Fact]:
    rng = np.random.default_rng(1)
    _, bars = draw_bars(process, [rng] * (3 * N_EPISODES), N_BARS, 1)
    closes = np.concatenate((np.full((len(bars.close), 1), 100.0), bars.close), axis=1)
    returns = np.diff(np.log(closes)).reshape(N_EPISODES, 3, N_BARS)
    times = bars.volume.reshape(N_EPISODES, 3, N_BARS)
    centred = RETURNS - RETURNS.mean(axis=1, keepdims=True)
    facts = {}
    for one, other in ((0, 1), (0, 2), (1, 2)):
        facts[f"time of {one} and {other}"] = Fact(float(np.abs(times[:, one] - times[:, other]).max()), 0.0, 0.0)
        for lag in (0, 1, 3):
            recorded = float(np.mean(centred[one] * np.roll(centred[other], -lag)))  # circular

            def covariance(values: FloatArray, one: int = one, other: int = other, lag: int = lag) -> float:
                before = values[:, one, : N_BARS - lag] - RETURNS[one].mean()
                return float(np.mean(before * (values[:, other, lag:] - RETURNS[other].mean())))

            facts[f"covariance of {one} and {other} at {lag}"] = from_groups(covariance, returns, (1 - 1 / BLOCK) ** lag * recorded)
        correlations = np.array([np.corrcoef(returns[n, one], returns[n, other])[0, 1] for n in range(0, N_EPISODES, 20)])
        drift = mean_of(correlations, float(np.corrcoef(RETURNS[one], RETURNS[other])[0, 1]))
        facts[f"correlation of {one} and {other}"] = drift._replace(standard_error=math.hypot(drift.standard_error, 0.01))
    for asset in range(3):
        facts[f"variance of {asset}"] = from_groups(lambda values: float(values.var()), returns[:, asset], RETURNS[asset].var())
        episodes = np.mean(times[1:, asset] == times[:-1, asset])
        facts[f"{asset} in the next episode"] = Fact(float(episodes), 1 / N_RECORDED, 0.001)
    return facts


@pytest.mark.long
def test_assets_drawn_together_keep_their_covariances_and_each_its_own_law(catalog: CatalogConfig) -> None:
    assert wrong_facts(joint_facts(StationaryBootstrap(catalog, **fixed(mean_block_bars=BLOCK, start_price=100.0)))) == []


class DrawnApart(StationaryBootstrap):
    """Each asset in blocks of its own."""

    __slots__ = ()

    def places(self, draws: Draws, mean_block_bars: FloatArray, n_bars: int) -> IntArray:
        """See `StationaryBootstrap`. Every row is drawn as an episode, of which it is one asset."""
        each = np.arange(3 * len(draws)) // 3
        places = StationaryBootstrap.places(self, draws.take(each.tolist()), mean_block_bars[each], n_bars)
        rows = np.arange(len(draws))
        return places.reshape(len(draws), 3, n_bars)[rows, rows % 3]


@pytest.mark.long
def test_assets_drawn_apart_have_their_own_laws_and_no_covariances(catalog: CatalogConfig) -> None:
    wrong = wrong_facts(joint_facts(DrawnApart(catalog, **fixed(mean_block_bars=BLOCK, start_price=100.0))))
    assert {"covariance of 0 and 1 at 0", "covariance of 1 and 2 at 1", "correlation of 0 and 1", "time of 0 and 1"} <= set(wrong)
    assert not [name for name in wrong if name.startswith("variance")]


@pytest.mark.long
@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        pytest.param(
            "times[:, None] + n_recorded",
            "(times[:, None] + np.arange(n_assets)[:, None]) % n_recorded + n_recorded",
            "covariance of 0 and 1 at 0",
            id="a bar later for each asset",
        ),
        pytest.param("n_recorded * np.arange(n_assets)", "0 * np.arange(n_assets)", "correlation of 0 and 2", id="one asset alone"),
        pytest.param("times[:, None]", "np.repeat(times[:1, None], len(times), 0)", "0 in the next episode", id="all episodes alike"),
    ],
)
def test_wrongly_joined_assets_are_found(old: str, new: str, fact: str, catalog: CatalogConfig) -> None:
    process = mutant("bootstrap", old, new).StationaryBootstrap(catalog, **fixed(mean_block_bars=BLOCK, start_price=100.0))
    assert fact in wrong_facts(joint_facts(process))


def test_the_assets_of_an_episode_share_the_length_of_their_blocks_and_have_prices_of_their_own(catalog: CatalogConfig) -> None:
    process: Any = StationaryBootstrap(catalog, symbols=("CCC", "AAA"))
    drawn, _ = draw_bars(process, [np.random.default_rng(seed) for seed in range(6)], 5, 1)
    lengths = [row["mean_block_bars"] for row in drawn]
    assert lengths[::2] == lengths[1::2]
    assert len({row["start_price"] for row in drawn}) == 6


def test_a_pipeline_trades_the_recorded_assets_at_once_under_its_own_names_for_them(catalog: CatalogConfig) -> None:
    process = {"name": "bootstrap", "recorded": {"paths": list(catalog.paths)}, "symbols": ["CCC", "AAA"]}
    prices = PricesConfig(process=process, symbols=("X", "Y"), symbols_per_episode=2, warmup_bars=30, bars_per_episode=20)
    (episode, _) = make_source(prices, seed=1).episodes([0, 1])
    assert episode.symbols == ("X", "Y")
    volumes = episode.bars.bars[:, :, 4]
    np.testing.assert_array_equal(volumes[:, 0], volumes[:, 1])
    lengths = {name: value for name, value in episode.bars.parameters.items() if name.endswith("mean_block_bars")}
    assert lengths == {"X.mean_block_bars": 20.0, "Y.mean_block_bars": 20.0}
    with pytest.raises(SettingsError, match=r"symbols_per_episode: expected 2, the assets of the process, received 1"):
        PricesConfig(process=process, symbols=("X", "Y"))


def test_bars_between_the_times_that_all_have_are_made_one(tmp_path: Path) -> None:
    columns = {
        "open": np.array([10.0, 11.0, 12.0, 13.0]),
        "high": np.array([15.0, 19.0, 15.0, 15.0]),
        "low": np.array([9.0, 9.0, 8.0, 9.0]),
        "close": np.array([10.0, 12.0, 13.0, 14.0]),
    }
    write_columns(tmp_path / "AAA.csv", **columns, volume=np.array([1.0, 2.0, 4.0, 8.0]))
    rows = [f"{FIRST_BAR_S + 60 * bar},1,1,1,1,{bar + 1}" for bar in (0, 2, 3, 4)]
    (tmp_path / "BBB.csv").write_text("\n".join(["time,open,high,low,close,volume", *rows]) + "\n", encoding="utf-8")
    process: Any = StationaryBootstrap(CatalogConfig((str(tmp_path),)))
    relative = process._relative
    assert relative.n_bars == 2
    assert relative.volume.tolist() == [6.0, 8.0, 3.0, 4.0]
    np.testing.assert_allclose(relative.open, [1.1, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(relative.high, [1.9, 15 / 13, 1.0, 1.0])
    np.testing.assert_allclose(relative.low, [0.8, 9 / 13, 1.0, 1.0])
    np.testing.assert_allclose(np.exp(relative.log_return), [1.3, 14 / 13, 1.0, 1.0])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"symbol": "DDD"}, "symbol: expected one of AAA, BBB, CCC, received 'DDD'"),
        ({"symbols": ("AAA", "DDD")}, "symbols: expected one of AAA, BBB, CCC, received 'DDD'"),
        ({"symbols": ("AAA", "AAA")}, "symbols: expected different ones, received AAA, AAA"),
        ({"symbol": "AAA", "symbols": ("BBB",)}, "symbols: expected none beside symbol = 'AAA', received BBB"),
    ],
)
def test_symbols_that_the_files_do_not_have_are_refused(options: dict[str, Any], problem: str, catalog: CatalogConfig) -> None:
    with pytest.raises(SettingsError, match=f"{problem}$"):
        StationaryBootstrap(catalog, **options)


def test_files_without_a_common_time_are_refused(tmp_path: Path) -> None:
    write_columns(tmp_path / "AAA.csv", close=np.array([1.0, 2.0, 3.0]))
    rows = [f"{FIRST_BAR_S + 60 * bar + 3},1,1,1,1,1" for bar in range(3)]
    (tmp_path / "BBB.csv").write_text("\n".join(["time,open,high,low,close,volume", *rows]) + "\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="recorded: expected at least 2 times at which AAA, BBB all have a bar, received 0"):
        StationaryBootstrap(CatalogConfig((str(tmp_path),)))
