"""The events of the pipeline, and the episode state that travels in them.

    Market --MARKET--> Execution --FILL--> Reward --REWARD--> Signal --SIGNAL--> Policy --ACTION--> Portfolio --ORDER--+
       ^                   ^                                     |                                                      |
       |                   +-------------------------------------|------------------------------------------------------+
       +---ORDER (held, or none: next bar)--- Execution,         +--EndEvent--> Episode: ends it, begins the next one
                                              Episode

The `Episode` in an event is a baton: whichever node holds the event owns the episode, and nobody else touches it. So no episode needs a
lock, however many threads there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.account import Account, Fill, Order
from policyserver.pipelines.features import FeatureState
from policyserver.pipelines.forecast.regressor import NO_PREDICTION, Prediction
from policyserver.pipelines.market.bars import Bar
from policyserver.pipelines.prices import EpisodePrices

Observation = npt.NDArray[np.float32]

Ending = Literal["terminated", "truncated", "lost", "abandoned"]
"""How an episode ends: by its own rules (ruin); by its length or the end of the run; with the server that held it; with a node that
failed while it held it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """An action on a bar, and how it came about."""

    bar: int
    """Index of the bar at whose close it was taken."""
    price: float
    """Close of that bar."""
    prediction: Prediction
    """Forecast of the next log-return."""
    action: int
    """0 sell, 1 hold, 2 buy; of a fallback: what it is reported as."""
    fallback: bool
    """Whether it is the configured fallback instead of the policy's action."""
    weights_seq_no: int
    """Policy version that acted, or the newest known one."""
    node: str
    """Name of the node thread that took it."""


@dataclass(slots=True)
class FallbackStep:
    """A step that was taken without the server."""

    observation: Observation
    """What the action was taken on."""
    action: int
    """What it is reported as."""
    reward: float | None = None
    """Its reward, once known."""


class Episode:
    """State of one episode: prices, features, account, and what is pending between two bars."""

    __slots__ = (
        "abandoned",
        "account",
        "decision",
        "ended",
        "features",
        "id",
        "observation",
        "prediction",
        "prices",
        "regressor_features",
        "return_sum",
        "slot",
        "started",
        "steps",
        "truncated",
        "unreported",
        "working_order",
    )

    def __init__(self, slot: int, id: str, prices: EpisodePrices, account: Account) -> None:
        """Begin before the first bar.

        Args:
            slot: place among the concurrent episodes; decides which replica of a node serves the episode.
            id: name of the episode, unique in the run.
            prices: its bars.
            account: flat.
        """
        self.slot = slot
        self.id = id
        self.prices = prices
        self.account = account
        self.features = FeatureState()
        self.prediction = NO_PREDICTION
        """Forecast made at the last bar."""
        self.regressor_features: dict[str, float] | None = None
        """What it was made from; the next bar brings its label."""
        self.observation: Observation | None = None
        """Observation at the last bar."""
        self.decision: Decision | None = None
        """Newest decision; its reward comes with the next bar."""
        self.working_order: Order | None = None
        """Order that waits for the next bar's open."""
        self.unreported: list[FallbackStep] = []
        """Fallback steps that the server has not heard of, oldest first; see `policyserver.pipelines.fallback`."""
        self.started = False
        """Whether the server has seen the first observation."""
        self.steps = 0
        """Rewards so far."""
        self.return_sum = 0.0
        """Sum of the rewards so far."""
        self.truncated = False
        """Whether the run is ending and the episode with it, at the bar it has reached."""
        self.abandoned = False
        """Whether a failed node held it: events that still carry it are void."""
        self.ended = False
        """Whether it has been ended and recorded."""

    @property
    def symbol(self) -> str:
        """What is traded."""
        return self.prices.symbol


@dataclass(frozen=True, slots=True)
class MarketEvent:
    """A bar has closed."""

    episode: Episode
    bar: Bar


@dataclass(frozen=True, slots=True)
class FillEvent:
    """What was pending is executed at the bar's open."""

    episode: Episode
    bar: Bar
    fill: Fill | None
    """None: nothing was pending."""


@dataclass(frozen=True, slots=True)
class RewardEvent:
    """The account is marked at the bar's close."""

    episode: Episode
    bar: Bar
    reward: float
    """Reward of the action on the bar before; 0 at the first bar, where there is none."""


@dataclass(frozen=True, slots=True)
class SignalEvent:
    """The forecast and the observation at the bar's close."""

    episode: Episode
    bar: Bar
    prediction: Prediction
    observation: Observation


@dataclass(frozen=True, slots=True)
class ActionEvent:
    """A decision on the bar."""

    episode: Episode
    decision: Decision


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """An order for the next bar's open; the market may go on."""

    episode: Episode
    order: Order | None
    """None: nothing to trade."""


@dataclass(frozen=True, slots=True)
class EndEvent:
    """An episode is over and leaves its slot to the next."""

    episode: Episode
    ending: Ending


@dataclass(frozen=True, slots=True)
class OpenEvent:
    """A slot wants its first episode."""

    slot: int


Event = MarketEvent | FillEvent | RewardEvent | SignalEvent | ActionEvent | OrderEvent | EndEvent | OpenEvent
"""Everything that travels between nodes."""
