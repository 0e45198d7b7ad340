"""The limit and the stop of `limit_offsets`: together they never trade more than the position that the stop protects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.orders import OrderKind
from tests.pipelines.market.risk.traded import FREE, Traded

ONE = np.array([0])
HELD = 5_000.0 / 101.0
"""Half of the equity at the close of 101 at which it was ordered."""


def holding(account: AccountConfig | None = None, *, short_allowed: bool = True) -> Traded:
    """A long position, with a volatility to set offsets by."""
    traded = Traded(actions="limit_offsets", instrument=replace(FREE, short_allowed=short_allowed), account=account)
    traded.bar(101.0)
    act(traded, 0.5, -1.0, -1.0)
    traded.bar(101.0)
    assert traded.position == pytest.approx(HELD)
    return traded


def act(traded: Traded, target: float, better: float, stop: float) -> None:
    traded.block.act(ONE, np.array([[target, better, stop]], dtype=np.float32))


@pytest.mark.parametrize("short_allowed", [True, False])
def test_a_limit_and_a_stop_that_are_reached_in_one_bar_leave_no_position(short_allowed: bool) -> None:
    traded = holding(short_allowed=short_allowed)
    act(traded, 0.0, 0.5, 0.0)
    traded.bar(101.0, high=110.0, low=92.0)
    assert traded.position == 0.0
    traded.bar(90.0)
    assert traded.position == 0.0
    assert ("cancelled", "reduce_only") in traded.told()


def test_a_stop_is_set_where_shorts_are_not_allowed_and_a_limit_sells_already() -> None:
    traded = holding(short_allowed=False)
    act(traded, 0.0, 0.5, 0.0)
    traded.bar(101.0)
    assert ("rejected", "short") not in traded.told()
    traded.bar(92.0)
    assert traded.position == 0.0


def test_a_stop_closes_what_a_limit_has_left() -> None:
    traded = holding()
    act(traded, 0.2, 0.5, 0.0)
    traded.bar(110.0, opens=101.0)
    assert 0 < traded.position < HELD / 2
    traded.bar(90.0)
    assert traded.position == 0.0


def test_a_stop_is_over_with_the_position_that_it_protects() -> None:
    traded = holding()
    act(traded, 0.0, 0.5, 0.0)
    traded.bar(110.0)
    assert traded.position == 0.0
    assert traded.told()[-1] == ("cancelled", "reduce_only")
    assert traded.block.broker.table.count[0] == 0


def test_a_stop_holds_no_order_back_that_turns_the_position() -> None:
    """What is projected for the leverage leaves it out: with it, a limit for the whole equity on the other side would go beyond."""
    traded = holding(AccountConfig())
    traded.order(-HELD, OrderKind.STOP, 90.0, reduce_only=True)
    assert traded.order(-HELD - 99.0)
    traded.bar(101.0)
    assert traded.position == pytest.approx(-99.0)


def test_a_limit_on_risk_sees_that_a_stop_only_reduces() -> None:
    traded = Traded({"name": "max_position", "units": 10.0})
    traded.order(10.0)
    traded.bar(100.0)
    assert traded.order(-15.0, OrderKind.LIMIT, 120.0)  # alone it leads to a short of 5
    assert traded.order(-10.0, OrderKind.STOP, 90.0, reduce_only=True)  # with it as a plain order to one of 15
    assert traded.order(-5.0, OrderKind.LIMIT, 121.0)  # the stop doesn't count: a short of 10
    assert not traded.order(-1.0, OrderKind.LIMIT, 122.0)


def test_a_stop_that_takes_another_ones_place_only_reduces_too() -> None:
    traded = Traded()
    traded.order(10.0)
    traded.bar(100.0)
    traded.order(-10.0, OrderKind.STOP, 90.0, reduce_only=True)
    number = int(traded.block.view.accounts.orders[0]) - 1
    found, accepted = traded.block.replace(traded.request(-30.0, OrderKind.STOP, 95.0), np.array([number]))
    assert (bool(found[0]), bool(accepted[0])) == (True, True)
    traded.bar(94.0)
    assert traded.position == 0.0
