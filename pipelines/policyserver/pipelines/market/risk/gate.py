"""What stands before the broker: every order passes the limits, or is refused with the limit that did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.execution.broker import SimulatedBroker
from policyserver.pipelines.market.execution.opening import Opening
from policyserver.pipelines.market.execution.order_table import LEFT, LIVE, PRICE, QUANTITY, REDUCE_ONLY, SIDE, SYMBOL
from policyserver.pipelines.market.orders import OrderRequests, Reason
from policyserver.pipelines.market.risk.limit import Proposed, RiskLimit, View

_DUST = 1e-12
"""Fraction by which an order may exceed the position that it closes."""
_LEFT_TO_THE_BROKER = -1


class RiskGate:
    """Submits the orders of a block through limits. A margin call's own orders don't come this way."""

    def __init__(self, limits: Sequence[tuple[RiskLimit, Any]], view: View, broker: SimulatedBroker) -> None:
        """Stand before `broker`.

        Args:
            limits: The limits with their states, which the block begins and updates, in the order in which they are asked.
            view: The block.
            broker: Takes what passes.
        """
        self._limits = limits
        self._view = view
        self._broker = broker
        self._openings = [(place, part, state) for place, (part, state) in enumerate(limits) if type(part).room is not RiskLimit.room]
        self._noting = [(part, state) for part, state in limits if type(part).passed is not RiskLimit.passed]
        if self._openings:
            broker.limit_openings(self)

    def submit(self, requests: OrderRequests) -> npt.NDArray[np.bool_]:
        """Take one order each of some rows; see `Broker`."""
        passes = self._passes(requests, None)
        if passes.all():
            return self._broker.submit(requests)
        accepted = passes.copy()
        accepted[passes] = self._broker.submit(requests.some(passes))
        return accepted

    def replace(self, requests: OrderRequests, numbers: IntArray) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Put one order each in the place of a live one, which stays if the new one is refused; see `SimulatedBroker`."""
        slots = self._broker.slots_of(requests.rows, numbers)
        found = slots >= 0
        accepted = np.zeros_like(found)
        taken = self._broker.instead_of(requests.some(found), slots[found])
        passes = self._passes(taken, slots[found])
        accepted[np.flatnonzero(found)[passes]] = self._broker.replace(taken.some(passes), numbers[found][passes])[1]
        return found, accepted

    def room(self, opening: Opening) -> tuple[FloatArray, IntArray]:
        """See `OpeningLimits`."""
        least = np.full(len(opening.rows), math.inf)
        why = np.zeros(len(opening.rows), dtype=np.int64)
        for place, part, state in self._openings:
            room = part.room(state, self._view, opening)
            tighter = room < least
            least, why = np.where(tighter, room, least), np.where(tighter, int(Reason.RISK) + place, why)
        return least, why

    def _passes(self, requests: OrderRequests, replaced: IntArray | None) -> npt.NDArray[np.bool_]:
        """Refuse what a limit refuses; return the rest. What has no quantity at all is left to the broker to refuse."""
        orders = self._broker.orders_of(requests)
        proposed = self._proposed(requests, orders, replaced)
        reason = np.where(orders[:, QUANTITY] > 0, 0, _LEFT_TO_THE_BROKER)
        for place, (part, state) in enumerate(self._limits):
            reason[part.refuses(state, self._view, proposed) & (reason == 0)] = int(Reason.RISK) + place
        passes: npt.NDArray[np.bool_] = reason <= 0
        if not passes.all():
            refused = requests.rows[~passes]
            self._broker.refuse(refused, orders[~passes], reason[~passes])
            self._view.refusals[refused, 1 + reason[~passes] - int(Reason.RISK)] += 1
        if len(goes_on := np.flatnonzero(reason == 0)):
            for part, state in self._noting:
                part.passed(state, self._view, proposed.take(goes_on))
        return passes

    def _proposed(self, requests: OrderRequests, orders: FloatArray, replaced: IntArray | None) -> Proposed:
        """Return requests with what they would come to; `replaced`: slots of live orders that they would replace."""
        rows, symbol, table = requests.rows, requests.symbol, self._broker.table
        side, quantity = orders[:, SIDE], orders[:, QUANTITY]
        position = self._view.accounts.position[rows]
        each = np.arange(len(rows))
        live = table.orders[rows, : table.longest]
        left = live[:, :, LEFT] * (live[:, :, LIVE] > 0)
        if replaced is not None:
            left[each, replaced] = 0.0
        pending = opening = self._pending(live, left)
        if table.has_reduce_only:
            opening = self._pending(live, left * (live[:, :, REDUCE_ONLY] == 0))
        before = position + opening[0] - opening[1]
        after = before.copy()
        after[each, symbol] += side * quantity
        held = position[each, symbol]
        with_others = quantity + pending[(side < 0).astype(np.int64), each, symbol]
        reduces = (side * held < 0) & (with_others <= np.abs(held) * (1 + _DUST))
        if requests.reduce_only is not None:
            after = np.where(requests.reduce_only[:, None], before, after)
            reduces |= requests.reduce_only
        return Proposed(rows, symbol, requests.kind, side * quantity, orders[:, PRICE], before, after, reduces)

    def _pending(self, live: FloatArray, left: FloatArray) -> FloatArray:
        """Return the units of live orders (m, slots) that are bought and sold of each symbol, float64 (2, m, K)."""
        pending, each = np.zeros((2, len(live), self._view.shape.n_symbols)), np.arange(len(live))
        for slot in range(live.shape[1]):
            is_sale = (live[:, slot, SIDE] < 0).astype(np.int64)
            pending[is_sale, each, live[:, slot, SYMBOL].astype(np.int64)] += left[:, slot]
        return pending
