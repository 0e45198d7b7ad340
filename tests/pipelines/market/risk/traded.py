"""A block of one or a few rows that trades what a test says, on bars that a test makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from policyserver.pipelines.market.bars import BarRows
from policyserver.pipelines.market.block import EpisodeBlock
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.instruments import InstrumentConfig
from policyserver.pipelines.market.orders import GOOD_TILL_CANCELLED, OrderEvents, OrderKind, OrderRequests, State
from policyserver.pipelines.market.rows import ALL
from policyserver.pipelines.market.rules import Rules, RulesConfig
from tests.pipelines.market.price_paths import begun, episode_of

FREE = InstrumentConfig(fee_fraction=0.0, slippage_fraction=0.0)
MINUTE_NS = 60 * 10**9


class Traded:
    """One row in K symbols, which all begin at a price of 100 with an equity of 10,000; unless told otherwise, on credit without end."""

    def __init__(
        self,
        *risk: dict[str, Any] | str,
        symbols: int = 1,
        instrument: InstrumentConfig = FREE,
        account: AccountConfig | None = None,
        observers: Sequence[Any] = ("position",),
        actions: Any = "target_weight",
    ) -> None:
        account = account or AccountConfig(max_leverage=None)
        rules = RulesConfig(actions=actions, risk=risk, instrument=instrument, account=account, observers=tuple(observers), ends=())
        episode = episode_of(np.full((10_000, symbols), 100.0), warmup_bars=2)
        self.block: EpisodeBlock = begun([episode], Rules.of(rules))[0]
        self.time_ns = 2 * MINUTE_NS
        self.events: list[OrderEvents] = []

    def order(
        self, quantity: float, kind: OrderKind = OrderKind.MARKET, price: float = 0.0, symbol: int = 0, good_for: int = 0,
        *, reduce_only: bool = False,
    ) -> bool:  # fmt: skip
        """Submit an order; return whether it is accepted."""
        return bool(self.block.submit(self.request(quantity, kind, price, symbol, good_for, reduce_only=reduce_only))[0])

    def request(
        self, quantity: float, kind: OrderKind = OrderKind.MARKET, price: float = 0.0, symbol: int = 0, good_for: int = 0,
        *, reduce_only: bool = False,
    ) -> OrderRequests:  # fmt: skip
        """Return an order as it is submitted."""
        one = np.zeros(1, dtype=np.int64)
        bars = np.array([good_for or GOOD_TILL_CANCELLED])
        reduces = np.ones(1, dtype=np.bool_) if reduce_only else None
        return OrderRequests(one, one + symbol, one + int(kind), np.array([quantity]), np.array([price]), bars, reduces)

    def bar(
        self, *closes: float, opens: float | None = None, high: float | None = None, low: float | None = None, volume: float = 1e6,
        present: Sequence[bool] | None = None, minutes: int = 1,
    ) -> None:  # fmt: skip
        """Play a bar that opens at the close before, unless told otherwise; one close for all symbols or one each."""
        before = self.price
        close = np.broadcast_to(np.array(closes), before.shape).astype(float)
        open_ = before if opens is None else np.full(before.shape, opens)
        top, bottom = np.maximum(open_, close), np.minimum(open_, close)
        top = top if high is None else np.full(before.shape, high)
        bottom = bottom if low is None else np.full(before.shape, low)
        self.time_ns += minutes * MINUTE_NS
        columns = (column[None] for column in (open_, top, bottom, close, np.full(before.shape, volume)))
        there = None if present is None else np.array([present])
        self.block.fill(ALL, BarRows.of(np.array([self.time_ns]), *columns), there)
        self.events.append(self.block.order_events.told())
        self.block.mark(ALL)
        self.events.append(self.block.order_events.told())

    @property
    def price(self) -> np.ndarray:
        price: np.ndarray = self.block.view.accounts.price[0].copy()
        return price

    @property
    def position(self) -> float:
        return float(self.block.view.accounts.position[0, 0])

    @property
    def positions(self) -> np.ndarray:
        position: np.ndarray = self.block.view.accounts.position[0]
        return position

    @property
    def equity(self) -> float:
        return float(self.block.view.accounts.equity[0])

    def told(self) -> list[tuple[str, str]]:
        """What became of orders so far, with the reasons."""
        reasons = self.block.rules.reasons
        return [
            (State(state).name.lower(), reasons[reason])
            for events in self.events
            for state, reason in zip(events.state.tolist(), events.reason.tolist(), strict=True)
        ]
