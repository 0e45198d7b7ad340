"""On a fair market nothing earns that knows no more than it can; what knows more earns, and is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.audit import fair_game as module
from policyserver.pipelines.market.bars import BarRows
from policyserver.pipelines.market.execution.broker import SimulatedBroker
from policyserver.pipelines.market.execution.order_table import LIVE, SIDE
from policyserver.pipelines.market.truth.other_bars import fair_bars
from policyserver.pipelines.prices.simulated import SimulatedSource
from tests.pipelines.audit.audited import fair_game, parts, seen, small, write_bars
from tests.pipelines.audit.leaks import HERE, let_parts_see_episodes
from tests.pipelines.audit.test_changed_future import with_episodes


@pytest.mark.long
def test_a_pipeline_without_a_fault_earns_nothing() -> None:
    result = fair_game(small(concurrent=32))
    assert result.faults == ()
    assert result.looked_at.startswith("6,000 bars, 95 rules within 5.")


@pytest.mark.long
def test_an_observer_that_sees_the_next_bar_earns(monkeypatch: pytest.MonkeyPatch) -> None:
    let_parts_see_episodes(monkeypatch)
    result = fair_game(seen(small(), {"name": f"{HERE}.NextReturn", "strength": 100.0}))
    assert result.faults[0].part.startswith("sign of observed NextReturn: next_return")
    assert "bp a bar, expected within" in result.faults[0].problem
    assert "calm" not in parts(result)


@pytest.mark.slow
def test_prices_smoothed_with_the_bar_that_follows_earn(monkeypatch: pytest.MonkeyPatch) -> None:
    with_episodes(monkeypatch, SimulatedSource, lambda bars: (bars + np.concatenate([bars[1:], bars[-1:]])) / 2.0)
    assert "sign of observed Returns: return_1" in parts(fair_game(small())).splitlines()


def filled(monkeypatch: pytest.MonkeyPatch, price: Any) -> None:
    """Let market orders fill at another price of or before their bar."""
    fill = SimulatedBroker.fill

    def at(broker: Any, rows: Any, bar: BarRows, present: Any = None) -> None:
        fill(
            broker,
            rows,
            replace(bar, columns=np.concatenate([price(broker, rows, bar)[..., None], bar.columns[..., 1:]], axis=-1)),
            present,
        )

    monkeypatch.setattr(SimulatedBroker, "fill", at)


@pytest.mark.slow
def test_a_fill_at_the_best_price_of_its_bar_earns(monkeypatch: pytest.MonkeyPatch) -> None:
    def best(broker: Any, rows: Any, bar: BarRows) -> Any:
        orders = broker.table.orders[rows]
        buys = ((orders[..., LIVE] > 0) & (orders[..., SIDE] > 0)).any(axis=1, keepdims=True)
        return np.where(buys, bar.low, bar.high)

    filled(monkeypatch, best)
    assert "random policy" in parts(fair_game(small())).splitlines()


@pytest.mark.long
def test_a_fill_at_a_price_that_was_there_before_the_decision_earns(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_last(broker: Any, rows: Any, bar: BarRows) -> Any:
        last = broker.__dict__.setdefault("last_opens", np.array(broker._accounts.price))
        before = np.array(last[rows])
        last[rows] = bar.open
        return before

    filled(monkeypatch, of_last)
    found = parts(fair_game(small())).splitlines()
    assert any(part.startswith("account, action") and "Returns: return_1" in part for part in found)


@pytest.mark.slow
def test_overlapping_windows_of_a_file_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """400 windows of 40 bars out of 160: as if they were independent, what is a chance of one path would look like a rule."""
    file = write_bars(tmp_path / "ONE.csv", 160, seed=1)
    config = small(concurrent=32, files=(file,))
    assert fair_game(config, bars=16_000).faults == ()
    monkeypatch.setattr(module, "_evidence", lambda times: np.arange(sum(len(at) - 1 for _, at in times)))
    assert fair_game(config, bars=16_000).faults != ()


def test_steps_of_several_bars_that_overlap_are_pieces_of_many() -> None:
    """Episodes that act every fifth bar, one of them two bars later than the other."""
    steps = [("ONE", np.arange(0, 401, 5)), ("ONE", np.arange(2, 403, 5)), ("TWO", np.arange(0, 401, 5))]
    assert len(np.unique(module._evidence(steps))) == 10 + 10
    same = [("ONE", np.arange(0, 401, 5)), ("ONE", np.arange(100, 501, 5))]
    assert len(np.unique(module._evidence(same))) == 100


@pytest.mark.long
def test_fair_bars_are_a_martingale_at_every_price_that_an_order_can_fill_at() -> None:
    """Bounds of 4.5 standard errors, of 8 statistics. A market whose log-price has no drift instead fails."""
    rng = np.random.default_rng(1)
    n = 400_000
    moves = 0.03 * np.abs(rng.standard_normal(n)) + 0.01
    opens = np.exp(0.02 * rng.standard_normal(n)) * 100.0
    model = np.stack([opens, opens * np.exp(moves), opens * np.exp(-0.2 * moves), opens * np.exp(0.5 * moves), np.ones(n)], axis=1)

    def scores(bars: np.ndarray) -> np.ndarray:
        open_, high, low, close = bars[:, :4].T
        before, after = close[:-1], (open_[1:], high[1:], low[1:], close[1:])
        open_, high, low, close = after
        buy, sell = before * 0.985, before * 1.015
        gains = [close / before - 1, open_ / before - 1, close / open_ - 1]
        gains += [np.where(low <= np.minimum(buy, open_), close / np.minimum(buy, open_) - 1, 0.0)]
        gains += [np.where(high >= np.maximum(sell, open_), close / np.maximum(sell, open_) - 1, 0.0)]
        return np.array([gain.sum() / np.sqrt(np.square(gain).sum()) for gain in gains])

    fair = fair_bars(model, rng)
    assert np.abs(scores(fair)).max() < 4.5
    drift = np.cumsum(np.full(n, 0.0003))[:, None]
    unfair = fair.copy()
    unfair[:, :4] = fair[:, :4] * np.exp(drift)
    assert np.abs(scores(unfair)).max() > 4.5
    assert np.array_equal(fair[:, 4], model[:, 4])
    assert (fair[:, 2] <= fair[:, [0, 3]].min(axis=1)).all()
    assert (fair[:, 1] >= fair[:, [0, 3]].max(axis=1)).all()
