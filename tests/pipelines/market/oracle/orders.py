"""Orders and fills (README.md, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tests.pipelines.market.oracle.terms import Bar


class Kind(Enum):
    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"
    ON_OPEN = "on_open"
    ON_CLOSE = "on_close"

    @property
    def is_priced(self) -> bool:
        return self in (Kind.LIMIT, Kind.STOP)

    @property
    def is_for_one_bar(self) -> bool:
        return self in (Kind.ON_OPEN, Kind.ON_CLOSE)


class State(Enum):
    SUBMITTED = "submitted"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    PARTLY_FILLED = "partly_filled"
    FILLED = "filled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


FOLLOWING = {
    State.SUBMITTED: {State.ACCEPTED, State.REJECTED},
    State.ACCEPTED: {State.PARTLY_FILLED, State.FILLED, State.CANCELLED, State.EXPIRED},
    State.PARTLY_FILLED: {State.PARTLY_FILLED, State.FILLED, State.CANCELLED, State.EXPIRED},
    State.REJECTED: set[State](),
    State.FILLED: set[State](),
    State.CANCELLED: set[State](),
    State.EXPIRED: set[State](),
}


class Reason(Enum):
    NONE = ""
    QUANTITY = "quantity"
    PRICE = "price"
    TOO_MANY = "too_many"
    MARGIN_CALL = "margin_call"
    SHORT = "short"
    MARGIN = "margin"
    TRADER = "trader"
    REPLACED = "replaced"
    REDUCE_ONLY = "reduce_only"


class Phase(Enum):
    OPEN = "open"
    WITHIN = "within"
    CLOSE = "close"


@dataclass(slots=True, kw_only=True)
class Order:
    number: int
    instrument: int
    kind: Kind
    side: int
    """+1 buys, -1 sells."""
    quantity: float
    price: float | None
    """Limit or stop, None for other kinds."""
    good_for: int | None
    forced: bool = False
    """Closes a position for a margin call."""
    reduce_only: bool = False
    left: float = 0.0
    filled: float = 0.0
    notional: float = 0.0
    fee_paid: float = 0.0
    triggered: bool = False
    bars_seen: int = 0
    given: int = 0
    """Steps that the account had taken when it was submitted."""
    state: State = State.SUBMITTED
    reason: Reason = Reason.NONE

    def __post_init__(self) -> None:
        self.left = self.quantity

    @property
    def is_live(self) -> bool:
        return self.state in (State.ACCEPTED, State.PARTLY_FILLED)

    def become(self, state: State, reason: Reason = Reason.NONE) -> None:
        if state not in FOLLOWING[self.state]:
            raise AssertionError(f"order {self.number}: {self.state.value} can't become {state.value}")
        self.state = state
        self.reason = reason

    def traded_side(self, spread_fraction: float) -> float:
        """Return what a price is multiplied by to be the one that the order waits for: of a limit the ask or the bid (README.md, 6.1)."""
        return 1 + self.side * (spread_fraction / 2) if self.kind is Kind.LIMIT else 1.0

    def reference(self, phase: Phase, bar: Bar, spread_fraction: float) -> float | None:
        """Return the price at which a bar meets the order in a phase, None when it doesn't (README.md, 6.1)."""
        if self.kind is Kind.ON_CLOSE:
            return bar.close if phase is Phase.CLOSE else None
        if phase is Phase.CLOSE:
            return None
        if self.price is None or self.triggered:
            return bar.open if phase is Phase.OPEN else None
        # A limit buy and a stop sell wait for a price at or below theirs, the two others for one at or above.
        waits_below = (self.kind is Kind.LIMIT) == (self.side > 0)
        factor = self.traded_side(spread_fraction)
        if phase is Phase.OPEN:
            is_met = bar.open * factor <= self.price if waits_below else bar.open * factor >= self.price
            return bar.open if is_met else None
        is_met = bar.low * factor <= self.price if waits_below else bar.high * factor >= self.price
        if not is_met:
            return None
        return min(max(self.price / factor, bar.low), bar.high) if self.kind is Kind.LIMIT else self.price


@dataclass(frozen=True, slots=True)
class Fill:
    order: int
    instrument: int
    side: int
    quantity: float
    phase: Phase
    reference: float
    """Price of the bar that the fill comes from."""
    price: float
    fee: float
