"""Requests as the orders that they would become, on the grids of their instruments."""

from __future__ import annotations

import math

import numpy as np

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.execution.order_table import (
    BARS_LEFT,
    KIND,
    LEFT,
    LIVE,
    N_COLUMNS,
    NUMBER,
    PRICE,
    QUANTITY,
    REDUCE_ONLY,
    SIDE,
    SYMBOL,
)
from policyserver.pipelines.market.instruments import Instruments, rounded
from policyserver.pipelines.market.orders import KIND_FACTS, OrderRequests


def new_orders(requests: OrderRequests, numbers: IntArray, instruments: Instruments) -> FloatArray:
    """Return requests as orders with these numbers, as they stand in an `OrderTable`, float64 (m, columns)."""
    rows, symbol, kind = requests.rows, requests.symbol, requests.kind
    orders = np.zeros((len(rows), N_COLUMNS))
    side, quantity = np.sign(requests.quantity), np.abs(requests.quantity)
    finite = quantity < math.inf
    if np.count_nonzero(finite) < len(finite):
        side, quantity = np.where(finite, side, 1.0), np.where(finite, quantity, 0.0)
    if instruments.has_lots:
        quantity = rounded(quantity, instruments.lot[rows, symbol], False)
    orders[:, NUMBER], orders[:, SYMBOL], orders[:, SIDE], orders[:, LIVE] = numbers, symbol, side, 1.0
    orders[:, QUANTITY] = orders[:, LEFT] = quantity
    orders[:, BARS_LEFT] = requests.good_for
    if np.count_nonzero(kind):
        orders[:, KIND] = kind
        orders[KIND_FACTS.for_one_bar[kind], BARS_LEFT] = 1
    if requests.reduce_only is not None:
        orders[:, REDUCE_ONLY] = requests.reduce_only
    orders[:, PRICE] = _price(requests, side, instruments)
    return orders


def _price(requests: OrderRequests, side: FloatArray, instruments: Instruments) -> FloatArray:
    """Return limits rounded so that none is worse than asked for, and stops so that they are reached later; 0 for other kinds."""
    price = requests.price
    if instruments.has_ticks:
        up = (side > 0) != KIND_FACTS.waits_for_better[requests.kind]
        safe = np.where(np.isfinite(price) & (price > 0), price, 0.0)
        price = rounded(safe, instruments.tick[requests.rows, requests.symbol], up)
    return price
