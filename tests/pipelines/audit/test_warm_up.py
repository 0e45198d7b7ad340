"""An observer that says how many bars it needs observes the same, within a tolerance, whatever came before them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipelines.audit.audited import parts, seen, small, warm_up, write_bars
from tests.pipelines.audit.leaks import HERE, let_parts_see_episodes


@pytest.mark.long
def test_shipped_observers_do_and_those_that_say_nothing_are_named(tmp_path: Path) -> None:
    for config in (small(prices={"warmup_bars": 200}), small(files=(write_bars(tmp_path / "ONE.csv", 900, seed=1),))):
        result = warm_up(seen(seen(config, "window"), {"name": "indicator", "kind": "macd"}))
        assert result.faults == ()
        assert result.notes[0].endswith("Distances, LogVolatility, Forecast, PositionShare, UnrealisedProfit, TimeLeft")


@pytest.mark.long
def test_one_that_remembers_all_bars_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    let_parts_see_episodes(monkeypatch)
    result = warm_up(seen(small(), f"{HERE}.SinceTheBeginning"))
    assert parts(result) == "observed SinceTheBeginning: distance"
    assert result.faults[0].bar == 0


@pytest.mark.long
def test_a_statistic_that_has_not_forgotten_its_beginning_is_allowed_for() -> None:
    assert warm_up(small(prices={"warmup_bars": 20})).faults == ()


def test_a_file_that_is_too_short_for_a_longer_warm_up_is_told(tmp_path: Path) -> None:
    result = warm_up(small(files=(write_bars(tmp_path / "ONE.csv", 120, seed=1),)))
    assert result.faults == ()
    assert "no room for a longer warm-up" in result.notes[0]
