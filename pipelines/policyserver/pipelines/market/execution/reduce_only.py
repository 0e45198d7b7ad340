"""The end of orders that may only make a position smaller: they are over with it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.accounts import Accounts
from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.execution.event_log import EventLog
from policyserver.pipelines.market.execution.order_table import LIVE, REDUCE_ONLY, SIDE, SYMBOL, OrderTable
from policyserver.pipelines.market.orders import Reason, State


def end_without_position(table: OrderTable, accounts: Accounts, log: EventLog, rows: IntArray, live: npt.NDArray[np.bool_]) -> bool:
    """Cancel reduce-only orders of m rows that have no position to reduce; return whether there are others.

    `live`: which orders of the rows are, bool (m, slots); those that end are taken from it.
    """
    places, slots = (live & (table.orders[rows, : live.shape[1], REDUCE_ONLY] > 0)).nonzero()
    of_rows = rows.take(places)
    orders = table.take(table.places(of_rows, slots))
    held = accounts.position.take(accounts.cells(of_rows, orders[:, SYMBOL].astype(np.int64)))
    ends = (orders[:, SIDE] * held >= 0).nonzero()[0]
    if len(ends):
        of_rows, slots = of_rows.take(ends), slots.take(ends)
        log.add(of_rows, orders.take(ends, axis=0), State.CANCELLED, Reason.REDUCE_ONLY)
        table.orders[of_rows, slots, LIVE] = 0.0
        live[places.take(ends), slots] = False
    return len(ends) < len(places)
