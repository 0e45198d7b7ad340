"""The simulated broker: accepts orders, fills them against the bars that follow, and calls margins.

    broker.submit(requests)                   # at the close of bar t, after its mark
    broker.fill(rows, bar)                    # bar t + 1: opens, moves and closes; shorts are paid for
    broker.call_margins(rows)                 # after the mark of bar t + 1

A bar's phases are its open, what lies within it, and its close. In each, the live orders of a row are looked at once, the oldest first; an
order is matched at most once in a bar. Within a bar nothing tells whether its high or its low came first, so age alone orders the fills.
Where symbols have bars of different lengths, a bar may have begun before an order was given: the order waits for the bar after it.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.accounts import Accounts
from policyserver.pipelines.market.bars import BarRows, FloatArray, IntArray
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.execution.event_log import EventLog, UntoldEvents
from policyserver.pipelines.market.execution.filling import Filling
from policyserver.pipelines.market.execution.margin_calls import NO_ROWS, MarginCalls
from policyserver.pipelines.market.execution.matching import PHASES, matches, orders_that_see, traded_side
from policyserver.pipelines.market.execution.new_orders import new_orders
from policyserver.pipelines.market.execution.next_open import NextOpen
from policyserver.pipelines.market.execution.opening import OpeningLimits
from policyserver.pipelines.market.execution.order_checks import OrderChecks
from policyserver.pipelines.market.execution.order_table import (
    BARS_LEFT,
    FORCED,
    KIND,
    LIVE,
    MATCHED,
    NUMBER,
    REDUCE_ONLY,
    SYMBOL,
    WAITED,
    OrderTable,
)
from policyserver.pipelines.market.execution.reduce_only import end_without_position
from policyserver.pipelines.market.execution.waiting import waiting_units, waits_at_any_price
from policyserver.pipelines.market.instruments import Instruments
from policyserver.pipelines.market.orders import KIND_FACTS, Fills, OrderRequests, Reason, State, Withdrawal
from policyserver.pipelines.market.rows import ALL, Rows


class Broker(Protocol):
    """Who executes orders: this simulation, or a real one of the same calls."""

    def submit(self, requests: OrderRequests) -> npt.NDArray[np.bool_]:
        """Take one order each of some rows, which may be `OrderRequests.reduce_only`; return which are accepted, bool (m,)."""

    def cancel(self, rows: IntArray, numbers: IntArray) -> npt.NDArray[np.bool_]:
        """Cancel one order each of some rows by their numbers; return which were live and could be, bool (m,)."""

    def fill(self, rows: Rows, bar: BarRows, present: npt.NDArray[np.bool_] | None = None) -> None:
        """Play the next bar of some rows: what fills is booked."""


class SimulatedBroker:
    """Orders of n rows in K symbols against bars. One owner at a time: not thread-safe."""

    def __init__(self, accounts: Accounts, instruments: Instruments, config: AccountConfig) -> None:
        """Serve `accounts`, which hold what is bought."""
        n_rows, self._n_symbols = accounts.position.shape
        self._accounts = accounts
        self._instruments = instruments
        self._leverage = math.inf if config.max_leverage is None else config.max_leverage
        self._all_rows = np.arange(n_rows)
        self._table = OrderTable(n_rows, max(config.max_live_orders, self._n_symbols))  # a margin call closes all of them at once
        self._begun = np.zeros((n_rows, self._n_symbols), dtype=np.int64)
        """How many bars of its row lie in a symbol's bar that isn't over; 0: in none."""
        self._has_begun = False
        """Whether there has been one in which some did."""
        self._only_at_open = True
        """Whether all live orders fill at the open of their next bar, if they fill: there is nothing to look for in the rest of the bar."""
        self.log = EventLog()
        """What is told of orders."""
        self._checks = OrderChecks(accounts, instruments, self._leverage)
        self._filling = Filling(accounts, instruments, self._table, self.log, self._leverage)
        self._next_open = NextOpen(accounts, instruments, self.log, self._leverage)
        self._margin_calls = MarginCalls(accounts, config.maintenance_fraction)

    @property
    def table(self) -> OrderTable:
        """The live orders, all of them."""
        if self._next_open.waits:
            self._table.append(*self._next_open.give_back())
        return self._table

    def begin(self, rows: Rows) -> None:
        """Forget the orders of rows whose episodes are over."""
        self._table.clear(rows)
        self._begun[rows] = 0
        if self._next_open.waits:
            self._next_open.forget(rows)

    def take_fills(self) -> Fills:
        """Return the fills since they were last taken."""
        return self.log.take_fills()

    def take_events(self) -> UntoldEvents:
        """Return what became of orders since it was last taken; see `EventLog`."""
        return self.log.take_events()

    # Orders --------------------------------------------------------------------------------------------------------------------------

    def submit(self, requests: OrderRequests) -> npt.NDArray[np.bool_]:
        """See `Broker`.

        Raises:
            ValueError: `good_for` is below 1.
        """
        if np.count_nonzero(requests.good_for < 1):
            raise ValueError(f"good_for: expected at least 1 bar, received {requests.good_for.min()}")
        if requests.reduce_only is None and self._waits_apart(requests) and self._next_open.take(requests):
            return np.ones(len(requests.rows), dtype=np.bool_)
        return self._submit(requests, None)

    def _waits_apart(self, requests: OrderRequests) -> bool:
        """Return whether orders may wait for the next open without a place in the table; see `NextOpen`."""
        filling = self._filling
        if not self._next_open.is_usual or self._table.longest or filling.has_forced or filling.limits is not None:
            return False
        return not (self.log.with_market_orders or np.count_nonzero(requests.kind))

    def cancel(self, rows: IntArray, numbers: IntArray) -> npt.NDArray[np.bool_]:
        """See `Broker`. An order that a margin call has given can't be cancelled, nor one whose bar has begun: it may have been filled."""
        slots = self.slots_of(rows, numbers)
        found = slots >= 0
        self._end(rows[found], slots[found], State.CANCELLED, Reason.TRADER)
        return found

    def cancel_all(self, rows: IntArray) -> None:
        """Cancel all live orders of some rows that can be cancelled, the oldest first; see `cancel`."""
        if not self.table.longest:
            return
        table, has_forced = self._table, self._filling.has_forced
        orders = table.of(rows)
        ends = orders[:, :, LIVE] > 0
        if has_forced:
            ends &= orders[:, :, FORCED] == 0
        if has_begun := self._has_begun:
            ends &= ~self._are_in_bars(rows, orders)
        if self._cancel(rows, orders, ends):
            if has_forced or has_begun:
                table.drop_dead(rows)
            else:
                table.forget(rows)

    def waiting(self, rows: IntArray) -> FloatArray | None:
        """See `LiveOrders`."""
        return self._next_open.waiting(rows) if self._next_open.waits else waiting_units(self._table, rows, self._n_symbols)

    def committed(self, rows: IntArray) -> FloatArray | None:
        """See `LiveOrders`."""
        return waiting_units(self._table, rows, self._n_symbols, self._are_in_bars) if self._has_begun else None

    def withdraw(self, withdrawal: Withdrawal) -> None:
        """Cancel what waits to be filled at any price and can be cancelled, of each row the oldest first; see `cancel`."""
        if self.table.longest:
            rows, orders = withdrawal.rows, self._table.of(withdrawal.rows)
            chosen = np.take_along_axis(withdrawal.symbols, orders[:, :, SYMBOL].astype(np.int64), axis=1)
            ends = chosen & waits_at_any_price(orders)
            if self._has_begun:
                ends &= ~self._are_in_bars(rows, orders)
            if self._cancel(rows, orders, ends):
                self._table.drop_dead(rows)

    def _cancel(self, rows: IntArray, orders: FloatArray, ends: npt.NDArray[np.bool_]) -> bool:
        """Cancel some of the orders (m, slots, columns) of rows; return whether there are any."""
        places, slots = ends.nonzero()
        if len(places):
            of_rows = rows.take(places)
            self._table.orders[of_rows, slots, LIVE] = 0.0
            self.log.add(of_rows, orders[places, slots], State.CANCELLED, Reason.TRADER)
        return len(places) > 0

    def replace(self, requests: OrderRequests, numbers: IntArray) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Put one order each in the place of a live one of the same symbol and kind, which stays if the new one is refused.

        Returns:
            Which of the old orders were live, and which of the new ones are accepted, bool (m,) each.
        """
        slots = self.slots_of(requests.rows, numbers)
        found = slots >= 0
        accepted = np.zeros_like(found)
        accepted[found] = self._submit(self.instead_of(requests.some(found), slots[found]), slots[found])
        return found, accepted

    def instead_of(self, requests: OrderRequests, slots: IntArray) -> OrderRequests:
        """Return requests with the symbols and kinds of the live orders, by slot, that they are to replace; as these, they only reduce."""
        old = self.table.orders[requests.rows, slots]
        symbol, kind = old[:, SYMBOL].astype(np.int64), old[:, KIND].astype(np.int64)
        reduce_only = old[:, REDUCE_ONLY] > 0 if self._table.has_reduce_only else None
        return OrderRequests(requests.rows, symbol, kind, requests.quantity, requests.price, requests.good_for, reduce_only)

    def _submit(self, requests: OrderRequests, replaced: IntArray | None) -> npt.NDArray[np.bool_]:
        """Check and take orders; `replaced`: slots of the orders that they replace, which the checks leave apart."""
        rows, orders = requests.rows, self.orders_of(requests)
        reason = self._checks.reasons(requests, orders, self.table, replaced, has_forced=self._filling.has_forced)
        self._accounts.orders[rows] = self._accounts.orders.take(rows) + 1
        accepted: npt.NDArray[np.bool_] = reason == 0
        are_accepted = np.count_nonzero(accepted) == len(accepted)
        if not are_accepted:
            self.log.add(rows[~accepted], orders[~accepted], State.REJECTED, reason[~accepted])
        if replaced is not None:
            self._end(rows[accepted], replaced[accepted], State.CANCELLED, Reason.REPLACED)
        if not are_accepted:
            rows, orders = rows[accepted], orders[accepted]
        if requests.reduce_only is not None and np.count_nonzero(orders[:, REDUCE_ONLY]):
            self._table.has_reduce_only = True
        self._take(rows, orders)
        return accepted

    def orders_of(self, requests: OrderRequests) -> FloatArray:
        """Return requests as the orders that they would become, on the instruments' grids, float64 (m, columns)."""
        return new_orders(requests, self._accounts.orders.take(requests.rows), self._instruments)

    def refuse(self, rows: IntArray, orders: FloatArray, reason: IntArray) -> None:
        """Tell that orders of different rows were refused before they were submitted; each keeps its number."""
        self._accounts.orders[rows] += 1
        self.log.add(rows, orders, State.REJECTED, reason)

    def limit_openings(self, limits: OpeningLimits) -> None:
        """Let limits bound what fills open."""
        self._filling.limits = limits

    def _take(self, rows: IntArray, orders: FloatArray) -> None:
        self.table.append(rows, orders)
        if self._only_at_open:
            kinds = orders[:, KIND]
            if np.count_nonzero(kinds) and not KIND_FACTS.at_open[kinds.astype(np.int64)].all():
                self._only_at_open = False
        self.log.add_usual(rows, orders, State.ACCEPTED)

    def slots_of(self, rows: IntArray, numbers: IntArray) -> IntArray:
        """Return the slots of live orders that the trader may end, int64 (m,), -1 where a row has no such order."""
        orders = self.table.of(rows)
        same = (orders[:, :, NUMBER] == numbers[:, None]) & (orders[:, :, LIVE] > 0) & (orders[:, :, FORCED] == 0)
        if self._has_begun:
            same &= ~self._are_in_bars(rows, orders)
        return np.where(same.any(axis=1), same.argmax(axis=1), -1)

    def _are_in_bars(self, rows: IntArray, orders: FloatArray) -> npt.NDArray[np.bool_]:
        """Return which orders of rows may be filled in a bar that has begun and isn't over, bool (m, slots)."""
        begun = np.take_along_axis(self._begun[rows], orders[:, :, SYMBOL].astype(np.int64), axis=1)
        in_bars: npt.NDArray[np.bool_] = (begun > 0) & (orders[:, :, WAITED] >= begun)
        return in_bars

    def _end(self, rows: IntArray, slots: IntArray, state: State, reason: Reason) -> None:
        """End one live order each of different rows."""
        if len(rows):
            self.table.orders[rows, slots, LIVE] = 0.0
            self.log.add(rows, self.table.orders[rows, slots], state, reason)
            self.table.drop_dead(rows)

    # Bars ----------------------------------------------------------------------------------------------------------------------------

    def fill(self, rows: Rows, bar: BarRows, present: npt.NDArray[np.bool_] | None = None) -> None:
        """Play the next bar of some rows; see `Broker`.

        Args:
            rows: The rows.
            bar: Their bars.
            present: Which symbols have a bar, bool (m, K); None: all. Those without keep their price, and their orders wait.
        """
        accounts = self._accounts
        self.log.in_bar = True
        numbers = self._all_rows[rows]
        accounts.price[rows] = bar.open if present is None else np.where(present, bar.open, accounts.price[rows])
        is_plain = present is None and bar.covers is None
        if self._next_open.waits and is_plain and rows is ALL:
            self._next_open.fill()
        elif self.table.longest and np.count_nonzero(self.table.count[rows]):
            if is_plain and self._only_at_open:
                self._play_market_orders(numbers, bar)
            else:
                self._play_orders(numbers, bar, present)
        accounts.price[rows] = bar.close if present is None else np.where(present, bar.close, accounts.price[rows])
        if bar.covers is not None:
            self._begun[rows] = 0 if present is None else np.where(present, 0, bar.covers)
            self._has_begun = True
        if self._instruments.costs_to_borrow:
            self._pay_for_shorts(rows, bar, present)

    def _play_market_orders(self, numbers: IntArray, bar: BarRows) -> None:
        """Fill live orders at the open, where there are none of other kinds."""
        table, filling = self.table, self._filling
        filling.begin_bar(numbers, bar, at_open_alone=True)
        count = table.count.take(numbers)
        for slot in range(table.longest):
            places = (count > slot).nonzero()[0]  # between bars, no order of a row's first `count` is dead
            rows = numbers.take(places)
            symbol = table.take(table.places(rows, slot))[:, SYMBOL].astype(np.int64)
            filling.fill(places, rows, slot, bar.open.take(self._accounts.cells(places, symbol)))
        if filling.leaves_live:
            self._age(numbers, None)
        else:
            table.forget(numbers)
            self._only_at_open = True

    def _play_orders(self, numbers: IntArray, bar: BarRows, present: npt.NDArray[np.bool_] | None) -> None:
        """Match, fill and age the live orders of rows through one bar."""
        table, n_slots = self.table, self.table.longest
        self._filling.begin_bar(numbers, bar, at_open_alone=False)
        rows = ALL if len(numbers) == len(self._all_rows) else numbers  # views where they can be
        table.orders[rows, :n_slots, MATCHED] = 0.0
        sees = self._orders_that_see(rows, n_slots, bar, present)
        instruments, side = self._instruments, None
        if instruments.has_spread:
            side = traded_side(table.orders[rows, :n_slots], instruments.half_spread[rows])
        for phase in PHASES:
            if phase != "close" or np.count_nonzero(KIND_FACTS.at_close.take(table.orders[rows, :n_slots, KIND].astype(np.int64))):
                self._fill_matched(numbers, *matches(table.orders[rows, :n_slots], bar, sees, phase, side))
            if phase is PHASES[-2]:
                close = bar.close if present is None else np.where(present, bar.close, self._accounts.price[numbers])
                self._accounts.price[numbers] = close
        self._age(numbers, sees)
        self._only_at_open = not table.longest

    def _orders_that_see(
        self, rows: Rows, n_slots: int, bar: BarRows, present: npt.NDArray[np.bool_] | None
    ) -> npt.NDArray[np.bool_] | None:
        """Return which orders of rows their bars are for, bool (m, slots); none: all."""
        orders, covers = self._table.orders, bar.covers
        if covers is not None:
            orders[rows, :n_slots, WAITED] += 1.0
            present = np.ones(covers.shape, dtype=np.bool_) if present is None else present
        return None if present is None else orders_that_see(orders[rows, :n_slots], present, covers)

    def _fill_matched(self, numbers: IntArray, matched: npt.NDArray[np.bool_], reference: FloatArray) -> None:
        """Fill the orders that are matched, (m, slots): the oldest of all rows together, for the next one sees what it leaves."""
        places, slots = matched.nonzero()
        while len(places):
            is_first = np.ones(len(places), dtype=np.bool_)
            is_first[1:] = places[1:] != places[:-1]
            if np.count_nonzero(is_first) == len(places):
                first, slot, places = places, slots, places[:0]
            else:
                first, slot, places, slots = places[is_first], slots[is_first], places[~is_first], slots[~is_first]
            self._filling.fill(first, numbers.take(first), slot, reference[first, slot])

    def _age(self, numbers: IntArray, sees: npt.NDArray[np.bool_] | None) -> None:
        """Let orders that have seen their bars expire, and forget those that are over; `sees`: those that a bar was for, none: all."""
        table, n_slots = self.table, self.table.longest
        rows = ALL if len(numbers) == len(self._all_rows) else numbers
        orders = table.orders[rows, :n_slots]
        live = orders[:, :, LIVE] > 0
        bars_left = orders[:, :, BARS_LEFT] - (1.0 if sees is None else sees)
        table.orders[rows, :n_slots, BARS_LEFT] = bars_left
        over = live & (bars_left <= 0)
        if np.count_nonzero(over):
            places, slots = np.nonzero(over)
            of_rows = numbers.take(places)
            self.log.add(of_rows, table.orders[of_rows, slots], State.EXPIRED)
            table.orders[of_rows, slots, LIVE] = 0.0
            live &= ~over
        if table.has_reduce_only:
            is_left = end_without_position(table, self._accounts, self.log, numbers, live)
            table.has_reduce_only = is_left or rows is not ALL
        dead = (np.add.reduce(live, axis=1, dtype=np.int64) < table.count[rows]).nonzero()[0]
        if len(dead):
            table.drop_dead(numbers.take(dead))

    def _pay_for_shorts(self, rows: Rows, bar: BarRows, present: npt.NDArray[np.bool_] | None) -> None:
        accounts = self._accounts
        position = accounts.position[rows]
        cost = np.where(position < 0, self._instruments.borrow_fraction[rows] * np.abs(position) * bar.close, 0.0)
        if present is not None:
            cost = np.where(present, cost, 0.0)
        total = cost.sum(axis=1)
        accounts.cash[rows] -= total
        accounts.borrow_costs[rows] += total

    def call_margins(self, rows: Rows) -> IntArray:
        """Close the positions of accounts whose equity no longer carries them: by market orders, at the next open. To follow the mark.

        Returns:
            Rows whose positions a call of before has closed, int64 (r,): they may give orders again.
        """
        if self._leverage == math.inf:
            return NO_ROWS
        released = self._margin_calls.release(rows)
        for row in self._margin_calls.due(rows).tolist():
            self._call(row)
        self._filling.has_forced = self._margin_calls.has_called
        return released

    def _call(self, row: int) -> None:
        """Cancel the orders of a row, and close its positions."""
        self.log.in_bar = True
        one = np.array([row])
        while self.table.count[row]:
            self._end(one, np.array([0]), State.CANCELLED, Reason.MARGIN_CALL)
        for order in self._margin_calls.orders(row):
            self._take(one, order)
