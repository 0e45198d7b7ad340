"""Further columns of a file are seen as of their bar's end, carried where a row has none, and differenced if asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from policyserver.common.settings import SettingsError
from policyserver.pipelines.market.block import EpisodeBlock
from policyserver.pipelines.market.feed import BarFeed
from policyserver.pipelines.market.files.config import FilesConfig
from policyserver.pipelines.market.files.faults import FileFaultError
from policyserver.pipelines.market.resample import ResampleConfig
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.vector_env import begin_episodes
from policyserver.pipelines.prices import PricesConfig
from policyserver.pipelines.run import source_of
from tests.pipelines.recorded_market import minutes, pipeline, recorded, write_symbol

N_BARS = 144
NEWS = [str(row**2) if row % 5 == 0 else "" for row in range(N_BARS)]
CARRIED = np.array([(row - row % 5) ** 2 for row in range(N_BARS)], dtype=np.float64)


def observed(
    folder: Path, observers: tuple[Any, ...], **catalog: Any
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], tuple[str, ...]]:
    """Play one episode over all bars; return the observations, the rows of the file that they are as of, and their names."""
    rules = RulesConfig(observers=observers)
    prices = PricesConfig(recorded=recorded(folder, columns=("news",), **catalog), bars_per_episode=15, warmup_bars=6)
    source = source_of(pipeline(prices, rules))
    (episode,) = source.episodes([0])
    made = Rules.of(rules)
    block, feed = EpisodeBlock(1, source.slots, made, columns=source.columns), BarFeed(1, 1, len(source.columns))
    rows = np.arange(1)
    begin_episodes(block, feed, rows, [episode])
    seen = [block.observe()[0]]
    while feed.has_next(rows).all():
        block.fill(rows, feed.next(rows))
        seen.append(block.observe()[0])
    return np.array(seen), episode.first_row + 5 + np.arange(len(seen)), made.names(source.slots)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_symbol(tmp_path / "A.csv", minutes(1), 1, NEWS)
    return tmp_path


def test_a_column_is_seen_as_it_stands_in_the_rows_up_to_the_bar(folder: Path) -> None:
    seen, rows, names = observed(folder, ({"name": "exogenous", "columns": ("news",), "scale": 1e-3},))
    assert names == ("news",)
    np.testing.assert_allclose(seen[:, 0], 1e-3 * CARRIED[rows], rtol=1e-6)


@pytest.mark.long
def test_what_comes_later_in_the_file_changes_nothing_before(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    observers = (
        {"name": "exogenous", "columns": ("news",), "scale": 1e-3},
        {"name": "differenced", "columns": ("news", "close"), "log": False},
        "returns",
    )
    seen, rows, _ = observed(folder, observers)
    cut = int(rows[7])
    other = tmp_path_factory.mktemp("other")
    lines = (folder / "A.csv").read_text().splitlines()
    changed = [line if row <= cut else line.rpartition(",")[0] + ",77" for row, line in enumerate(lines[1:])]
    (other / "A.csv").write_text("\n".join([lines[0], *changed]) + "\n")
    again, _, _ = observed(other, observers)
    assert np.array_equal(again[:8], seen[:8])
    assert not np.array_equal(again[8:], seen[8:]), "the change was seen when its time had come"


@pytest.mark.parametrize("log", [False, True])
def test_differences_are_plain_or_of_logarithms(folder: Path, log: bool) -> None:
    observer = {"name": "differenced", "columns": ("close", "news"), "bars": (1, 3), "log": log, "scale": 0.01}
    seen, rows, names = observed(folder, (observer,))
    kind = "log_diff" if log else "diff"
    assert names == tuple(f"{column}_{kind}_{bars}" for column in ("close", "news") for bars in (1, 3))
    closes = np.loadtxt(folder / "A.csv", delimiter=",", skiprows=1, usecols=4)
    columns = [np.log(np.maximum(values, np.finfo(float).tiny)) if log else values for values in (closes, CARRIED)]
    expected = [0.01 * (values[rows] - values[rows - bars]) for values in columns for bars in (1, 3)]
    np.testing.assert_allclose(seen, np.clip(np.transpose(expected), -100, 100), rtol=1e-5, atol=1e-7)


def test_longer_bars_have_the_last_value_within_them(folder: Path) -> None:
    seen, rows, _ = observed(folder, ({"name": "exogenous", "columns": ("news",), "scale": 1e-3},), resample=ResampleConfig("1h"))
    np.testing.assert_allclose(seen[:, 0], 1e-3 * CARRIED[6 * rows + 5], rtol=1e-6)


@pytest.mark.long
def test_a_parquet_file_has_further_columns_too(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    table = np.loadtxt(folder / "A.csv", delimiter=",", skiprows=1, usecols=range(6))
    names = ("time", "open", "high", "low", "close", "volume")
    columns: dict[str, Any] = {name: pa.array(table[:, place]) for place, name in enumerate(names)}
    columns["time"] = pa.array((table[:, 0] * 1e9).astype("M8[ns]"))
    columns["News"] = pa.array([float(value) if value else None for value in NEWS])
    other = tmp_path_factory.mktemp("parquet")
    parquet.write_table(pa.table(columns), other / "A.parquet")
    observers = ({"name": "exogenous", "columns": ("news",), "scale": 1e-3}, "returns")
    assert np.array_equal(observed(other, observers)[0], observed(folder, observers)[0])


@pytest.mark.parametrize(
    ("columns", "observer", "message"),
    [
        (("news",), "mood", r"^prices\.recorded\.files\.columns: expected mood, which the observers of the rules read, received news$"),
        ((), "news", r"columns: expected news, which the observers of the rules read, received none"),
        (("mood",), "mood", r"A\.csv, line 1: columns: expected mood in the file, received \['time', .*'news'\]"),
    ],
)
def test_a_column_that_is_not_there_is_refused(folder: Path, columns: tuple[str, ...], observer: str, message: str) -> None:
    rules = RulesConfig(observers=({"name": "exogenous", "columns": (observer,)},))
    prices = PricesConfig(recorded=recorded(folder, columns=columns), bars_per_episode=15, warmup_bars=6)
    with pytest.raises(ValueError, match=message):
        source_of(pipeline(prices, rules))


def test_a_column_that_begins_later_than_the_bars_is_refused(tmp_path: Path) -> None:
    write_symbol(tmp_path / "A.csv", minutes(1), 1, ["", *NEWS[1:]])
    with pytest.raises(ValueError, match=r"A\.csv, column news: expected a number with the first bar, received none") as raised:
        observed(tmp_path, ("returns",))
    assert isinstance(raised.value.__cause__, FileFaultError)


def test_prices_are_no_further_columns() -> None:
    with pytest.raises(SettingsError, match="columns: expected columns beside prices and volume, received close"):
        FilesConfig(columns=("Close", "news"))
