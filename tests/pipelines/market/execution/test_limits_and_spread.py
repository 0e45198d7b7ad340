"""A limit trades with the ask or the bid: it is no market order without costs."""

from __future__ import annotations

import pytest

from policyserver.pipelines.market.instruments import InstrumentConfig
from policyserver.pipelines.market.orders import OrderKind
from tests.pipelines.market.risk.traded import Traded

WIDE = InstrumentConfig(fee_fraction=0.0, spread_fraction=0.02, slippage_fraction=0.0)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_limit_at_the_last_close_is_not_filled_at_the_open_for_nothing(side: float) -> None:
    traded = Traded(instrument=WIDE)
    traded.order(side, OrderKind.LIMIT, 100.0)
    traded.bar(100.0, high=100.9, low=99.1)
    assert traded.position == 0.0
    traded.bar(100.0, high=101.1, low=98.9)
    assert traded.position == side
    accounts = traded.block.view.accounts
    assert accounts.cash[0] == pytest.approx(10_000.0 - side * 100.0)
    assert accounts.slippage[0] == pytest.approx(100.0 / (1 + side * 0.01) * 0.01)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_limit_beyond_the_ask_or_the_bid_pays_it_at_the_open(side: float) -> None:
    traded = Traded(instrument=WIDE)
    traded.order(side, OrderKind.LIMIT, 100.0 + 3.0 * side)
    traded.bar(100.0)
    assert traded.position == side
    assert traded.block.view.accounts.cash[0] == pytest.approx(10_000.0 - side * (100.0 + side))


def test_a_stop_waits_for_the_price_itself() -> None:
    traded = Traded(instrument=WIDE)
    traded.order(1.0)
    traded.bar(100.0)
    traded.order(-1.0, OrderKind.STOP, 99.5)
    traded.bar(100.0, low=99.6)
    assert traded.position == 1.0
    traded.bar(100.0, low=99.4)
    assert traded.position == 0.0
