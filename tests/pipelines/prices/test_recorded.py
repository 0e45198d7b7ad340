"""Recorded episodes are windows of the files' bars that the seed chooses; what is no file of bars, or too short a one, is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from policyserver.common.settings import SettingsError
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.market.files.reader import read_file
from policyserver.pipelines.prices import PricesConfig, make_source
from policyserver.pipelines.run import source_of
from tests.pipelines.recorded_prices import catalog_of, fair_game, index_series, write_bars

SAMPLES = Path(__file__).parents[1] / "market" / "files" / "samples"


def windows_of(*files: Path, warmup: int = 30, bars: int = 50) -> PricesConfig:
    return PricesConfig(recorded=catalog_of(*files), warmup_bars=warmup, bars_per_episode=bars)


@pytest.mark.long
def test_episodes_are_windows_of_the_files_chosen_by_the_seed() -> None:
    config = windows_of(index_series("sp500"), index_series("nasdaq"))
    source, again, other = make_source(config, 1), make_source(config, 1), make_source(config, 2)
    assert source.symbols == ("nasdaq", "sp500")
    assert source.slots == ("price",)
    bars = read_file(index_series("sp500"))[0].bars
    numbers = range(1, 41, 2)
    starts = []
    for played, repeated in zip(source.episodes(numbers), again.episodes(numbers), strict=True):
        assert played.symbols == ("sp500",)
        first = int(played.bars.parameters["first_row"])
        np.testing.assert_array_equal(played.bars.bars, bars.slice(first, first + 80).columns())
        np.testing.assert_array_equal(played.bars.time_ns, bars.time_ns[first : first + 80])
        np.testing.assert_array_equal(played.bars.bars, repeated.bars.bars)
        assert (played.first_row, played.bars.n_steps) == (first, 50)
        history = played.histories["sp500"]
        assert (len(history.bars), history.window_bars) == (len(bars), 80)
        starts.append(first)
    assert len(set(starts)) > 15
    assert starts != [episode.first_row for episode in other.episodes(numbers)]
    assert all(episode.histories == source.episodes([1])[0].histories for episode in source.episodes(numbers)), "one object for all"


@pytest.mark.long
def test_every_start_of_a_file_is_drawn_about_as_often(tmp_path: Path) -> None:
    file = write_bars(tmp_path / "AAA.csv", fair_game(12, seed=1))
    played = make_source(windows_of(file, warmup=3, bars=5), 1).episodes(range(2_000))
    counts = np.bincount([episode.first_row for episode in played], minlength=5)
    assert len(counts) == 5, "12 bars have five windows of 8"
    assert np.all(np.abs(counts - 400) < 4 * np.sqrt(2_000 * 0.2 * 0.8))


def test_a_file_of_exactly_one_episode_has_one_window(tmp_path: Path) -> None:
    file = write_bars(tmp_path / "tiny.csv", fair_game(8, seed=1))
    assert {played.first_row for played in make_source(windows_of(file, warmup=3, bars=5), 5).episodes(range(10))} == {0}


@pytest.mark.parametrize("count", [1, 3, 7])
def test_any_number_of_symbols_take_turns(count: int, tmp_path: Path) -> None:
    for number in range(count):
        write_bars(tmp_path / f"S{number}.csv", fair_game(20 + number, seed=number))
    source = make_source(PricesConfig(recorded=CatalogConfig((str(tmp_path),)), warmup_bars=2, bars_per_episode=5), 1)
    assert source.symbols == tuple(f"S{number}" for number in range(count))
    assert [episode.symbols for episode in source.episodes(range(2 * count))] == [(symbol,) for symbol in source.symbols] * 2


def test_an_episode_has_no_bar_of_another_ones_symbol(tmp_path: Path) -> None:
    closes = {name: scale * fair_game(30, seed=1) for name, scale in (("LOW", 1e-3), ("MID", 1.0), ("TOP", 1e3))}
    source = make_source(windows_of(*(write_bars(tmp_path / f"{name}.csv", each) for name, each in closes.items()), warmup=2, bars=5), 1)
    for episode in source.episodes(range(60)):
        assert np.isin(episode.bars.bars[:, 0, 3], closes[episode.symbols[0]]).all()


def test_a_change_of_a_window_reaches_no_other_episode(tmp_path: Path) -> None:
    source = make_source(windows_of(write_bars(tmp_path / "AAA.csv", fair_game(8, seed=1)), warmup=3, bars=5), 1)
    first = source.episodes([0])[0]
    with pytest.raises(ValueError, match="read-only"):
        first.bars.bars[:] = 0.0


def test_vendors_files_are_played_beside_each_other_by_their_own_symbols() -> None:
    files = [SAMPLES / name for name in ("yfinance_two.csv", "stooq_bulk.txt", "metatrader5_utf16.csv", "tradingview.csv")]
    source = make_source(windows_of(*files, warmup=2, bars=3), 1)
    assert source.symbols == ("AAPL.US", "MSFT", "MSFT.US", "TSLA", "metatrader5_utf16", "tradingview")
    assert {episode.symbols[0] for episode in source.episodes(range(6))} == set(source.symbols)


def refusal(prices: PricesConfig) -> str:
    with pytest.raises(SettingsError) as refused:
        source_of(PipelineConfig(prices=prices))
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def test_what_cannot_be_played_is_refused_in_one_line_with_the_file(tmp_path: Path) -> None:
    short = write_bars(tmp_path / "SHORT.csv", fair_game(50, seed=1))
    expected = "expected at least warmup_bars + bars_per_episode = 30 + 50 bars, received 50: set fewer of either"
    assert refusal(windows_of(short)) == f"prices: {short}: {expected}"
    assert re.match(r"prices\.recorded\.paths: expected files of bars, received '.*none\.csv'", refusal(windows_of(tmp_path / "none.csv")))
    assert refusal(windows_of()) == "prices.recorded.paths: expected files, folders or patterns, received none"
    broken = write_bars(tmp_path / "BROKEN.csv", fair_game(100, seed=1))
    broken.write_text(broken.read_text().replace(",1\n", ",-1\n", 1))
    fault = "line 2, column volume: expected at least 0, received -1"
    remedy = 'faults.volume = "drop" leaves such rows out'
    assert refusal(windows_of(broken)) == f"prices.recorded.files: {broken}, {fault}; {remedy}"
    locked = write_bars(tmp_path / "LOCKED.csv", fair_game(100, seed=1))
    locked.unlink()
    locked.mkdir()
    assert "LOCKED.csv" in refusal(windows_of(locked))
