"""Schemes that remember what they have asked for: an order that comes to nothing can be asked for again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.schemes.actions.target_position import TargetPosition
from tests.pipelines.market.risk.traded import FREE, Traded

ONE = np.array([0])
LONG = {"sell_hold_buy": 2, "target_position": 4}
VOLUME = replace(FREE, volume_fraction=0.5)


def act(traded: Traded, action: int) -> None:
    traded.block.act(ONE, np.array([action]))


def of(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, **settings}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("order", ["on_open", "on_close"])
def test_an_order_that_expires_is_asked_for_again(name: str, order: str) -> None:
    traded = Traded(actions=of(name, order=order), instrument=VOLUME)
    act(traded, LONG[name])
    traded.bar(100.0, volume=0.0)
    assert traded.position == 0.0
    act(traded, LONG[name])
    traded.bar(100.0)
    assert traded.position == 100.0
    act(traded, LONG[name])
    traded.bar(100.0)
    assert (traded.position, traded.block.view.accounts.orders[0]) == (100.0, 2)


@pytest.mark.parametrize("name", LONG)
def test_a_position_that_a_margin_call_closed_is_asked_for_again(name: str) -> None:
    account = AccountConfig(max_leverage=2.0, maintenance_fraction=0.3)
    traded = Traded(actions=of(name, unit_fraction=2.0), account=account)
    for close in (100.0, 70.0, 70.0):
        act(traded, LONG[name])
        traded.bar(close)
    assert traded.position == 0.0
    act(traded, LONG[name])
    traded.bar(70.0)
    assert traded.position == pytest.approx(2 * 4_000.0 / 70.0)


@pytest.mark.parametrize("name", LONG)
def test_an_order_that_only_closes_the_position_is_asked_for_again(name: str) -> None:
    """A jump at the open leaves nothing of the equity to open the other side with; then money comes in."""
    traded = Traded(actions=of(name), account=AccountConfig())
    act(traded, 0)
    traded.bar(100.0)
    act(traded, LONG[name])
    traded.bar(250.0, opens=250.0)
    assert traded.position == 0.0
    traded.block.view.accounts.cash[:] = 10_000.0
    traded.block.mark(ONE)
    act(traded, LONG[name])
    traded.bar(250.0)
    assert traded.position == pytest.approx(40.0)


def test_flat_is_asked_for_again_where_the_closing_order_expired() -> None:
    traded = Traded(actions=of("target_position", order="on_open"), instrument=VOLUME)
    act(traded, 4)
    traded.bar(100.0)
    for volume in (0.0, 180.0, 1e6):  # nothing, nine tenths, and the rest
        act(traded, 2)
        traded.bar(100.0, volume=volume)
    assert traded.position == 0.0


def test_what_keeps_a_position_says_so_of_one_that_never_came() -> None:
    traded = Traded(actions=of("target_position", order="on_open"), instrument=VOLUME)
    act(traded, 4)
    traded.bar(100.0, volume=0.0)
    assert traded.block.keeping(ONE).tolist() == [2]


@pytest.mark.parametrize("name", LONG)
def test_a_part_that_still_waits_is_on_its_way(name: str) -> None:
    traded = Traded(actions=of(name), instrument=VOLUME)
    for volume in (0.0, 60.0, 60.0, 60.0, 60.0):
        act(traded, LONG[name])
        traded.bar(100.0, volume=volume)
    assert (traded.position, traded.block.view.accounts.orders[0]) == (100.0, 1)


@pytest.mark.parametrize("tells", [True, False])
def test_what_the_costs_cut_changes_no_step_whether_it_is_told_or_not(tells: bool) -> None:
    traded = Traded(actions=of("target_position", steps=100), instrument=replace(FREE, fee_fraction=0.01), account=AccountConfig())
    traded.block.broker.log.with_market_orders = tells
    for _ in range(3):
        act(traded, 200)
        traded.bar(100.0)
    assert traded.block.view.accounts.orders[0] == 1
    assert isinstance(traded.block.rules.actions, TargetPosition)
    assert traded.block.keeping(ONE).tolist() == [200]
