"""The scalar account that the demo had before blocks: the reference that a block's books are held against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from policyserver.common.settings import Config
from policyserver.monitoring.action import ACTIONS_TEXT, Action

EQUITY_FLOOR = 1e-3
"""An equity below this fraction of the initial one counts as this fraction in the reward's logarithm."""


@dataclass(frozen=True, slots=True)
class AccountConfig(Config):
    """Money and costs of an episode. Its bounds keep all products with prices far from what a float can hold."""

    initial_equity: Annotated[float, Interval(gt=0, le=1e15)] = 10_000.0
    """Cash at the start."""
    unit_fraction: Annotated[float, Interval(gt=0, le=1e3)] = 1.0
    """Notional of one unit as a fraction of the equity when it is ordered."""
    fee_fraction: Annotated[float, Interval(ge=0, lt=1)] = 0.001
    """Fee as a fraction of the traded notional."""
    slippage_fraction: Annotated[float, Interval(ge=0, lt=1)] = 0.0001
    """Distance of the fill price from the bar's open, against the trader, as a fraction of the open."""
    ruin_fraction: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    """The account is ruined, and the episode over, when equity is at most this fraction of the initial equity."""
    reward_scale: Annotated[float, Interval(gt=0, le=1e6)] = 100.0
    """Reward per unit of log-equity gained: 100 makes a reward of 1 a gain of about one per cent."""


@dataclass(frozen=True, slots=True)
class Order:
    """A market order."""

    quantity: float
    """Units to buy (positive) or to sell (negative)."""
    target: int
    """Position it leads to: -1 one unit short, 0 none, 1 one unit long."""


@dataclass(frozen=True, slots=True)
class Fill:
    """An executed order."""

    quantity: float
    """Units bought (positive) or sold (negative)."""
    price: float
    """Price paid or received per unit, slippage included."""
    fee: float
    """Fee paid, in cash."""
    slippage: float
    """Cash lost against a fill at the open itself."""


class Account:
    """Portfolio arithmetic of one episode. Not thread-safe: an episode has one owner at a time."""

    __slots__ = (
        "cash",
        "config",
        "drawdown",
        "entry_equity",
        "equity",
        "fees",
        "fills",
        "highest_equity",
        "marked_equity",
        "position",
        "price",
        "slippage",
        "target",
        "turnover",
    )

    def __init__(self, config: AccountConfig, price: float) -> None:
        """Open the account, without a position, at `price` (the close of the bar of the first action)."""
        self.config = config
        self.cash = config.initial_equity
        """Cash, negative when a long position costs more than there was."""
        self.position = 0.0
        """Units held, negative when short."""
        self.target = 0
        """Direction of the position held or ordered last: -1, 0 or 1."""
        self.price = price
        """Price of the last fill or mark."""
        self.equity = config.initial_equity
        """cash + position * price, as of the last fill or mark."""
        self.marked_equity = config.initial_equity
        """Equity at the last mark: where the next reward starts."""
        self.highest_equity = config.initial_equity
        """Highest equity of all marks so far."""
        self.drawdown = 0.0
        """Largest fall of the equity below its highest value before, a fraction of that, over all marks so far."""
        self.entry_equity = config.initial_equity
        """Equity right after the last fill."""
        self.fees = 0.0
        """Fees paid so far, in cash."""
        self.slippage = 0.0
        """Cash lost to slippage so far."""
        self.turnover = 0.0
        """Notional traded so far."""
        self.fills = 0
        """Number of fills so far."""

    @property
    def costs(self) -> float:
        """Fees and slippage so far, in cash."""
        return self.fees + self.slippage

    @property
    def profit(self) -> float:
        """Simple profit so far, costs taken off, as a fraction of the initial equity."""
        return self.equity / self.config.initial_equity - 1.0

    @property
    def exposure(self) -> float:
        """Value of the position as a signed fraction of the equity."""
        return self.position * self.price / self.equity if self.equity > 0 else 0.0

    @property
    def ruined(self) -> bool:
        """Whether the equity is down to the ruin level: the episode must end."""
        return self.equity <= self.config.ruin_fraction * self.config.initial_equity

    def order(self, action: int) -> Order | None:
        """Return the order that an action asks for at the last mark, None when there is nothing to trade.

        Raises:
            ValueError: it is not an `Action`.
        """
        if action == Action.HOLD:
            return None
        if action not in (Action.SELL, Action.BUY):
            raise ValueError(f"action: expected one of {ACTIONS_TEXT}, received {action!r}")
        return self.order_to(1 if action == Action.BUY else -1)

    def order_to(self, target: int) -> Order | None:
        """Return the order that leads to `target` (-1, 0 or 1 units), None when the account is there already."""
        if target == self.target:
            return None
        self.target = target
        wanted = target * self.config.unit_fraction * self.equity / self.price
        return Order(wanted - self.position, target)

    def fill(self, order: Order, open_price: float) -> Fill:
        """Execute an order at a bar's open, slippage and fee included."""
        config = self.config
        quantity = order.quantity
        slip = open_price * config.slippage_fraction
        price = open_price + slip if quantity > 0 else open_price - slip
        notional = abs(quantity) * price
        fee = notional * config.fee_fraction
        slippage = abs(quantity) * slip
        self.cash -= quantity * price + fee
        self.position = 0.0 if order.target == 0 else self.position + quantity
        self.fees += fee
        self.slippage += slippage
        self.turnover += notional
        self.fills += 1
        self.price = open_price
        self.equity = self.entry_equity = self.cash + self.position * open_price
        return Fill(quantity, price, fee, slippage)

    def mark(self, price: float) -> float:
        """Value the position at a bar's close.

        Returns:
            The reward: reward_scale * log(equity now / equity at the mark before), finite even if the equity is lost.
        """
        self.price = price
        self.equity = self.cash + self.position * price
        reward = self.config.reward_scale * math.log(self._floored(self.equity) / self._floored(self.marked_equity))
        self.marked_equity = self.equity
        self.highest_equity = max(self.highest_equity, self.equity)
        self.drawdown = max(self.drawdown, 1.0 - self.equity / self.highest_equity)
        return reward

    def _floored(self, equity: float) -> float:
        return max(equity, EQUITY_FLOOR * self.config.initial_equity)
