"""A scheme's orders fill at the open or at the close, as its `order` says; what the volume leaves over of them waits or is over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.market.instruments import InstrumentConfig
from tests.pipelines.market.risk.traded import Traded

THIN = InstrumentConfig(fee_fraction=0.0, slippage_fraction=0.0, volume_fraction=0.5)
BUY: dict[str, Any] = {
    "sell_hold_buy": np.array([2]),
    "hold_buy_sell_close": np.array([1]),
    "target_position": np.array([4]),
    "target_weight": np.ones((1, 1), dtype=np.float32),
    "simplex_weights": np.array([[-1.0, 1.0]], dtype=np.float32),
}


@pytest.mark.parametrize("scheme", BUY)
@pytest.mark.parametrize(("order", "price", "waits"), [("market", 80.0, True), ("on_open", 80.0, False), ("on_close", 120.0, False)])
def test_an_order_fills_where_its_name_says(scheme: str, order: str, price: float, waits: bool) -> None:
    traded = Traded(actions={"name": scheme, "order": order}, instrument=THIN)
    traded.block.act(np.zeros(1, dtype=np.int64), BUY[scheme])
    traded.bar(120.0, opens=80.0, volume=20.0)
    assert traded.position == 10.0
    assert traded.block.view.accounts.average_price[0, 0] == price
    traded.bar(120.0)
    assert (traded.position > 10.0) is waits
    assert (("expired", "none") in traded.told()) is not waits
