"""The oracle: one account that fills its orders from bars, one object and one number at a time. README.md says what each part does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tests.pipelines.market.oracle.matching import Matching
from tests.pipelines.market.oracle.orders import Fill, Kind, Order, Phase, Reason, State
from tests.pipelines.market.oracle.terms import DUST, MARGIN, Bar, Instrument, Rules, down, up


@dataclass(frozen=True, slots=True)
class Step:
    fills: list[Fill]
    equity: float
    reward: float


class Account:
    def __init__(self, rules: Rules, instruments: Sequence[Instrument], prices: Sequence[float]) -> None:
        """Open the account, without positions, at the closes of the bars at which the first orders are decided."""
        if len(prices) != len(instruments):
            raise ValueError(f"prices: expected one for each of {len(instruments)} instruments, received {len(prices)}")
        if rules.max_live_orders < len(instruments):
            raise ValueError(f"max_live_orders: expected at least one for each instrument, received {rules.max_live_orders}")
        self.rules = rules
        self.instruments = list(instruments)
        self.price = list(prices)
        self.cash = rules.initial_cash
        self.position = [0.0] * len(instruments)
        self.average = [0.0] * len(instruments)
        self.fees = 0.0
        self.slippage = 0.0
        self.borrow = 0.0
        self.turnover = 0.0
        self.realised = 0.0
        self.n_fills = 0
        self.call = False
        self.marked_equity = rules.initial_cash
        self.n_steps = 0
        self.begun = [0] * len(instruments)
        """Steps that lie in an instrument's bar that isn't over."""
        self.orders: list[Order] = []
        """Every order there was; an order's number is its place."""
        self._working: list[Order] = []
        """The live orders, oldest first, and some that no longer are."""

    # What the account is worth

    @property
    def equity(self) -> float:
        total = self.cash
        for position, price in zip(self.position, self.price, strict=True):
            total = total + position * price
        return total

    @property
    def gross(self) -> float:
        return self._gross(self.position)

    @property
    def unrealised(self) -> float:
        total = 0.0
        for position, price, average in zip(self.position, self.price, self.average, strict=True):
            total = total + position * (price - average)
        return total

    @property
    def margin_is_on(self) -> bool:
        return self.rules.max_leverage < math.inf

    def live(self) -> list[Order]:
        """Return the live orders, oldest first."""
        self._working = [order for order in self._working if order.is_live]
        return list(self._working)

    def _gross(self, positions: Sequence[float]) -> float:
        total = 0.0
        for position, price in zip(positions, self.price, strict=True):
            total = total + abs(position) * price
        return total

    # Section 4: what the trader can ask for at the close of a bar

    def submit(
        self,
        instrument: int,
        kind: Kind,
        quantity: float,
        price: float | None = None,
        good_for: int | None = None,
        *,
        reduce_only: bool = False,
    ) -> Order:
        return self._submit(instrument, kind, quantity, price, good_for, reduce_only=reduce_only, instead_of=None)

    def cancel(self, number: int) -> bool:
        order = self.orders[number]
        if not order.is_live or order.forced or self._is_in_bar(order):
            return False
        order.become(State.CANCELLED, Reason.TRADER)
        return True

    def replace(self, number: int, quantity: float, price: float | None = None, good_for: int | None = None) -> Order | None:
        old = self.orders[number]
        if not old.is_live or old.forced or self._is_in_bar(old):
            return None
        new = self._submit(old.instrument, old.kind, quantity, price, good_for, reduce_only=old.reduce_only, instead_of=old)
        if new.is_live:
            old.become(State.CANCELLED, Reason.REPLACED)
        return new

    def _is_in_bar(self, order: Order) -> bool:
        return 0 < self.begun[order.instrument] <= self.n_steps - order.given

    def _submit(
        self,
        instrument: int,
        kind: Kind,
        quantity: float,
        price: float | None,
        good_for: int | None,
        *,
        reduce_only: bool,
        instead_of: Order | None,
    ) -> Order:
        if good_for is not None and good_for < 1:
            raise ValueError(f"good_for: expected at least 1, received {good_for}")
        if kind.is_priced and price is None:
            raise ValueError(f"price: expected a number for a {kind.value} order, received None")
        terms = self.instruments[instrument]
        side = 1 if quantity > 0 else -1
        order = Order(
            number=len(self.orders),
            instrument=instrument,
            kind=kind,
            side=side,
            quantity=down(abs(quantity), terms.lot) if math.isfinite(quantity) else 0.0,
            price=self._order_price(kind, side, price, terms.tick),
            good_for=1 if kind.is_for_one_bar else good_for,
            given=self.n_steps,
            reduce_only=reduce_only,
        )
        others = [other for other in self.live() if other is not instead_of]
        reason = self._refusal(order, others)
        self.orders.append(order)
        if reason is Reason.NONE:
            self._accept(order)
        else:
            order.become(State.REJECTED, reason)
        return order

    def _accept(self, order: Order) -> None:
        order.become(State.ACCEPTED)
        self._working.append(order)

    @staticmethod
    def _order_price(kind: Kind, side: int, price: float | None, tick: float) -> float | None:
        if price is None or not kind.is_priced:
            return None
        if not (math.isfinite(price) and price > 0):
            return 0.0
        rounds_down = (kind is Kind.LIMIT) == (side > 0)
        return down(price, tick) if rounds_down else up(price, tick)

    def _refusal(self, order: Order, others: list[Order]) -> Reason:
        if order.quantity == 0:
            return Reason.QUANTITY
        if order.price is not None and order.price <= 0:
            return Reason.PRICE
        if self.call:
            return Reason.MARGIN_CALL
        if len(others) >= self.rules.max_live_orders:
            return Reason.TOO_MANY
        if order.reduce_only:
            return Reason.NONE if self._has_to_reduce(order) else Reason.REDUCE_ONLY
        before = list(self.position)
        for other in others:
            if not other.reduce_only:
                before[other.instrument] = before[other.instrument] + other.side * other.left
        projected = list(before)
        k = order.instrument
        projected[k] = projected[k] + order.side * order.quantity
        if not self.instruments[k].short_allowed and order.side < 0 and projected[k] < -DUST * order.quantity:
            return Reason.SHORT
        if self.margin_is_on and abs(projected[k]) > abs(before[k]):
            allowed = self.rules.max_leverage * self.equity * (1 + MARGIN)
            if self._gross(projected) > allowed:
                return Reason.MARGIN
        return Reason.NONE

    def _has_to_reduce(self, order: Order) -> bool:
        return order.side * self.position[order.instrument] < 0

    # Section 5: a step

    def step(self, bars: Sequence[Bar | None], begun: Sequence[int] | None = None) -> Step:
        if len(bars) != len(self.instruments) or all(bar is None for bar in bars):
            raise ValueError(f"bars: expected one or None for each of {len(self.instruments)} instruments, received {bars}")
        present = {k: bar for k, bar in enumerate(bars) if bar is not None}
        self.n_steps += 1
        self.begun = [0 if bar is not None or begun is None else begun[k] for k, bar in enumerate(bars)]
        matching = Matching(self, present)
        for k, bar in present.items():
            self.price[k] = bar.open
        matching.run(Phase.OPEN)
        matching.run(Phase.WITHIN)
        for k, bar in present.items():
            self.price[k] = bar.close
        matching.run(Phase.CLOSE)
        self._age(present)
        self._pay_borrow(present)
        reward = self._mark()
        self._call_margin()
        return Step(matching.fills, self.marked_equity, reward)

    def is_for(self, bar: Bar | None, order: Order) -> bool:
        """Return whether an order may fill in a bar: it had not begun when the order was given."""
        return bar is not None and self.n_steps - order.given >= bar.steps

    def _age(self, present: dict[int, Bar]) -> None:
        for order in self.live():
            if self.is_for(present.get(order.instrument), order):
                order.bars_seen += 1
                if order.good_for is not None and order.bars_seen >= order.good_for:
                    order.become(State.EXPIRED)
        for order in self.live():
            if order.reduce_only and not self._has_to_reduce(order):
                order.become(State.CANCELLED, Reason.REDUCE_ONLY)

    def _pay_borrow(self, present: dict[int, Bar]) -> None:
        for k, bar in present.items():
            if self.position[k] < 0:
                cost = self.instruments[k].borrow_fraction * abs(self.position[k]) * bar.close
                self.cash = self.cash - cost
                self.borrow = self.borrow + cost

    def _mark(self) -> float:
        floor = self.rules.equity_floor_fraction * self.rules.initial_cash
        equity = self.equity
        reward = self.rules.reward_scale * math.log(max(equity, floor) / max(self.marked_equity, floor))
        self.marked_equity = equity
        return reward

    # Section 7: margin call

    def _call_margin(self) -> None:
        if self.call:
            self.call = any(self.position)
        elif self.margin_is_on and self.gross > 0 and self.marked_equity < self.rules.maintenance_fraction * self.gross:
            self.call = True
            for order in self.live():
                order.become(State.CANCELLED, Reason.MARGIN_CALL)
            for k, position in enumerate(self.position):
                if position != 0:
                    self._force_closed(k, position)

    def _force_closed(self, k: int, position: float) -> None:
        order = Order(
            number=len(self.orders),
            instrument=k,
            kind=Kind.MARKET,
            side=-1 if position > 0 else 1,
            quantity=abs(position),
            price=None,
            good_for=None,
            forced=True,
            given=self.n_steps,
        )
        self.orders.append(order)
        self._accept(order)
