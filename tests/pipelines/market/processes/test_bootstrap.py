"""The stationary bootstrap keeps bars whole, their law, and their order within blocks of geometric length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.common.settings import SettingsError
from policyserver.pipelines.market.bars import Bars, FloatArray
from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.market.priors import Prior
from policyserver.pipelines.market.processes.bootstrap import StationaryBootstrap
from policyserver.pipelines.market.processes.draws import Draws
from tests.pipelines.market.processes.facts import Fact, fixed, from_groups, mean_of, mutant, wrong_facts
from tests.pipelines.recorded_prices import write_columns

N_RECORDED, N_ROWS, N_BARS, BLOCK = 120, 4000, 100, 8.0


def recorded_bars() -> Bars:
    """Bars with gaps whose returns are correlated, and whose volume says which bar it is."""
    rng = np.random.default_rng(5)
    noise = rng.standard_normal(N_RECORDED + 4) * 0.01
    closes = 50.0 * np.exp(np.cumsum(np.convolve(noise, [1.0, 0.8, 0.6, 0.4], "valid")))
    opens = np.append(50.0, closes[:-1]) * np.exp(0.003 * rng.standard_normal(len(closes)))
    highs = np.maximum(opens, closes) * np.exp(0.01 * rng.random(len(closes)))
    lows = np.minimum(opens, closes) * np.exp(-0.01 * rng.random(len(closes)))
    return Bars(np.arange(len(closes)), opens, highs, lows, closes, 1000 + np.arange(len(closes)).astype(np.float64))


RECORDED = recorded_bars()


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> CatalogConfig:
    """The recorded bars as a file has them."""
    columns = {name: getattr(RECORDED, name) for name in ("open", "high", "low", "close", "volume")}
    return CatalogConfig((str(write_columns(tmp_path_factory.mktemp("bars") / "AAA.csv", **columns)),))


def drawn(process: Any) -> dict[str, FloatArray]:
    """Columns relative to the close before, each (n_rows, n_bars)."""
    rng = np.random.default_rng(1)
    parameters = {name: np.full(N_ROWS, value) for name, value in process.draw_parameters(rng).items()}
    bars = process.bars(Draws([rng] * N_ROWS), parameters, N_BARS, 4)
    before = np.concatenate((np.full((N_ROWS, 1), 100.0), bars.close[:, :-1]), axis=1)
    return {name: getattr(bars, name) / before for name in ("open", "high", "low", "close")} | {"volume": bars.volume}


def bootstrap_facts(process: Any) -> dict[str, Fact]:
    columns = drawn(process)
    source = {name: getattr(RECORDED, name)[1:] / RECORDED.close[:-1] for name in ("open", "high", "low", "close")}
    returns, own = np.log(columns["close"]), np.log(source["close"])
    rows = np.round(columns["volume"] - 1001).astype(np.int64)
    follows = (rows[:, 1:] - rows[:, :-1]) % N_RECORDED == 1
    facts = {
        "mean": from_groups(lambda values: float(values.mean()), returns, own.mean()),
        "variance": from_groups(lambda values: float(values.var()), returns, own.var()),
        # A new block follows the old one by chance once in N_RECORDED.
        "share of bars in order": mean_of(follows * 1.0, 1 - 1 / BLOCK + 1 / BLOCK / N_RECORDED),
        "each bar as often": mean_of((rows == N_RECORDED - 1) * 1.0, 1 / N_RECORDED),
        "first bars are any": mean_of(rows[:, 0].astype(np.float64), (N_RECORDED - 1) / 2),
    }
    facts |= {f"{name} of its bar": Fact(float(np.abs(columns[name] - source[name][rows]).max()), 0.0, 1e-13) for name in source}
    for lag in (1, 3, 10):
        circular = float(np.mean((own - own.mean()) * (np.roll(own, -lag) - own.mean())))

        def autocovariance(values: FloatArray, lag: int = lag) -> float:
            return float(np.mean((values[:, :-lag] - own.mean()) * (values[:, lag:] - own.mean())))

        facts[f"autocovariance at {lag}"] = from_groups(autocovariance, returns, (1 - 1 / BLOCK) ** lag * circular)
    return facts


@pytest.mark.long
def test_the_bootstrap_has_its_facts(catalog: CatalogConfig) -> None:
    assert wrong_facts(bootstrap_facts(StationaryBootstrap(catalog, **fixed(mean_block_bars=BLOCK, start_price=100.0)))) == []


def test_bars_hold_together(catalog: CatalogConfig) -> None:
    process = StationaryBootstrap(catalog, mean_block_bars=Prior(1.0, 40.0))
    rng = np.random.default_rng(2)
    parameters = {name: np.full(500, value) for name, value in process.draw_parameters(rng).items()}
    bars = process.bars(Draws([rng] * 500), parameters, 200, 1)
    assert np.all(bars.low > 0)
    assert np.all(bars.low <= np.minimum(bars.open, bars.close))
    assert np.all(np.maximum(bars.open, bars.close) <= bars.high)


@pytest.mark.long
@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        pytest.param("begins[:, 0] = True", "begins[:, :] = True", "autocovariance at 1", id="single returns with replacement"),
        pytest.param(
            "* mean_block_bars[:, None] < 1.0", "* mean_block_bars[:, None] ** 2 < 1.0", "share of bars in order", id="long blocks"
        ),
        pytest.param("begins[:, 0] = True", "begins[:, :] = bars_from(n_bars)", "autocovariance at 10", id="blocks of one length"),
        pytest.param("+ bars - begun) % n_recorded", "- bars + begun) % n_recorded", "share of bars in order", id="backwards"),
        pytest.param(
            "firsts, begun, axis=1) + bars - begun) % n_recorded",
            "firsts, begun, axis=1) + bars - begun).clip(0, n_recorded - 1)",
            "each bar as often",
            id="the last bar is not followed by the first",
        ),
        pytest.param("recorded.volume[places]", "recorded.volume[places[::-1]]", "close of its bar", id="volumes of other bars"),
        pytest.param("recorded.high[places]", "recorded.high[places[::-1]]", "high of its bar", id="ranges of other bars"),
        pytest.param("before * recorded.open[places]", "before", "open of its bar", id="gaps lost"),
        pytest.param(
            "draws.uniform(n_bars) * n_recorded", "draws.uniform(n_bars) * n_recorded / 2", "first bars are any", id="first half only"
        ),
    ],
)
def test_a_wrong_bootstrap_is_found(old: str, new: str, fact: str, catalog: CatalogConfig) -> None:
    changed = mutant("bootstrap", old, new)
    changed.bars_from = lambda n_bars: np.arange(n_bars) % int(BLOCK) == 0
    process = changed.StationaryBootstrap(catalog, **fixed(mean_block_bars=BLOCK, start_price=100.0))
    assert fact in wrong_facts(bootstrap_facts(process))


def test_bars_from_a_date_on_are_not_drawn_from(catalog: CatalogConfig) -> None:
    process: Any = StationaryBootstrap(catalog, until="2020-01-01T01:00", **fixed(mean_block_bars=BLOCK))
    rng = np.random.default_rng(3)
    volumes = process.bars(Draws([rng] * 200), {name: np.full(200, 8.0) for name in ("mean_block_bars", "start_price")}, 100, 1).volume
    assert set(volumes.ravel().tolist()) == {1000.0 + bar for bar in range(1, 60)}  # the first 59 bars end before; stamps are ends


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    file = write_columns(tmp_path / "AAA.csv", close=np.array([1.0, 2.0, 3.0]))
    before: Any = StationaryBootstrap(CatalogConfig((str(file),)))
    write_columns(file, close=np.array([1.0, 2.0, 3.0, 5.0]))
    after: Any = StationaryBootstrap(CatalogConfig((str(file),)))
    assert (len(before._relative.volume), len(after._relative.volume)) == (2, 3)


def test_a_symbol_is_chosen_where_the_files_have_several(tmp_path: Path) -> None:
    for name, factor in (("AAA", 1.0), ("BBB", 2.0)):
        write_columns(tmp_path / f"{name}.csv", close=np.array([1.0, 2.0, 3.0]), volume=np.array([1.0, 1.0, 1.0]) * factor)
    config = CatalogConfig((str(tmp_path),))
    with pytest.raises(SettingsError, match="symbol: expected one of AAA, BBB, received 'CCC'"):
        StationaryBootstrap(config, symbol="CCC")
    chosen: Any = StationaryBootstrap(config, symbol="BBB")
    assert chosen._relative.volume.tolist() == [2.0, 2.0]
