"""Names that others choose are bounded where they are in every point of the record, in the event log, or in a server's ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policyserver.common.settings import SettingsError
from policyserver.pipelines.market.catalog import Catalog, CatalogConfig
from policyserver.pipelines.market.episode_source import MOST_NAME_BYTES, Episode
from policyserver.pipelines.market.feed import EpisodeBars
from policyserver.pipelines.market.files.faults import FileFaultError
from policyserver.pipelines.market.orders import Reason
from policyserver.pipelines.market.rules import MOST_LIMITS, Rules, RulesConfig
from policyserver.pipelines.prices import PricesConfig
from policyserver.server.episodes.row_checks import MOST_ID_BYTES
from tests.pipelines.recorded_prices import fair_game, write_bars


def episode(symbols: tuple[str, ...], number: int = 10**15) -> Episode:
    return Episode(symbols, number, EpisodeBars(np.arange(2), np.zeros((2, len(symbols), 5)), 1, {}))


@pytest.mark.parametrize("count", [1, 2, 5, 20, 500, 10_000])
@pytest.mark.parametrize("letters", [3, 8, 64])
@pytest.mark.parametrize("zero", ["0", "零"])
def test_an_episode_of_any_number_of_symbols_has_a_name_that_a_server_takes(count: int, letters: int, zero: str) -> None:
    symbols = tuple(f"{place:0{letters}d}"[-letters:] for place in range(count))
    symbols = tuple(symbol.replace("0", zero) for symbol in symbols)
    traded, whole = episode(symbols).traded, "+".join(symbols)
    assert len(traded.encode()) <= MOST_NAME_BYTES
    assert len(episode(symbols).id.encode()) <= MOST_ID_BYTES
    assert episode(symbols, 1).id != episode(symbols, 2).id
    if len(whole.encode()) <= MOST_NAME_BYTES:
        assert (traded, episode(symbols, 7).id) == (whole, f"{whole}-7")
    else:
        shown = traded.rpartition("+")[0].split("+") if count > 1 else [traded]
        assert count == 1 or traded.endswith(f"+{count - len(shown)}more")
        assert all(whole.startswith(name) for name, whole in zip(shown, symbols, strict=False))


def test_long_symbols_are_refused_where_they_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="symbols: expected names of at most 64 letters, received 'AAA"):
        PricesConfig(symbols=("A" * 65,))
    file = write_bars(tmp_path / f"{'A' * 65}.csv", fair_game(20, seed=1))
    with pytest.raises(FileFaultError, match=r"\.csv: expected a symbol of at most 64 letters, received 'AAA"):
        Catalog(CatalogConfig((str(file),)))


def test_limits_have_short_names_and_numbers_that_the_event_log_holds() -> None:
    group = {"name": "group_exposure", "group": "g" * 500, "symbols": ["AAA"]}
    reasons = Rules.of(RulesConfig(risk=(group,))).reasons
    assert max(map(len, reasons)) == 64
    assert np.iinfo(np.int8).max >= Reason.RISK + MOST_LIMITS
    with pytest.raises(SettingsError, match="risk: expected at most 100 limits, received 101"):
        Rules.of(RulesConfig(risk=(group,) * 101))
