"""The events of the pipeline: a block of episodes, and what the node before has done with it.

    Market --MARKET--> Execution --FILL--> Reward --REWARD--> Signal --SIGNAL--> Policy --ACTION--> Portfolio --+
       ^                                                        |                                               |
       +---ORDER (the next bar)---------------------------------|-----------------------------------------------+
                                                                +--EndEvent--> Episode: ends what is over with the server

The block in an event is a baton; see `played_block`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt

from policyserver.pipelines.market.bars import BarRows, IntArray
from policyserver.pipelines.market.block import Marked
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.orders import Fills
from policyserver.pipelines.market.step_kinds import StepKinds
from policyserver.pipelines.played_block import FallbackStep, Observations, PlayedBlock

Ending = Literal["terminated", "truncated", "lost", "abandoned"]
"""How an episode ends: by its own rules (ruin); by its length or the end of the run; with the server that held it; with a node that
failed while it held it."""


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """What the actions asked for has been ordered; the market may go on."""

    played: PlayedBlock


@dataclass(frozen=True, slots=True)
class MarketEvent:
    """A bar has closed for the rows that wait for one; new episodes stand at the bar of their first action."""

    played: PlayedBlock
    rows: IntArray
    """Rows that the bar is of, int64 (m,)."""
    bar: BarRows | None
    """The bars; None: no row waits for one."""


@dataclass(frozen=True, slots=True)
class FillEvent:
    """What was ordered is executed in the bar."""

    played: PlayedBlock
    rows: IntArray
    fills: Fills | None


@dataclass(frozen=True, slots=True)
class RewardEvent:
    """The accounts are marked at the bar's close."""

    played: PlayedBlock
    rows: IntArray
    marked: Marked | None


@dataclass(frozen=True, slots=True)
class SignalEvent:
    """The forecasts and the observations at the bar's close."""

    played: PlayedBlock
    rows: IntArray
    """Rows that want an action, int64 (m,)."""


@dataclass(frozen=True, slots=True)
class ActionEvent:
    """Decisions on the bar."""

    played: PlayedBlock
    rows: IntArray
    """Rows that have one, int64 (m,)."""
    actions: npt.NDArray[Any]
    """What the policy says; of a fallback what it is reported as."""
    kinds: StepKinds | None
    """What their steps do, (m,); None: each does what its action says."""


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """An episode that is over, apart from the block that has gone on without it."""

    episode: Episode
    id: str
    symbol: str
    ending: Ending
    reason: str
    """Why: the name of the end, "data", "stopped", or what was lost."""
    is_started: bool
    """Whether the server has seen its first observation."""
    observation: Observations
    """The last one, float32 (size,)."""
    unreported: list[FallbackStep]
    actions: npt.NDArray[Any]
    """What was done, fallbacks as they are reported, (n, ...); none if there is too much of it."""
    kinds: StepKinds | None
    """What these steps did, (n,); None: each did what its action says."""
    steps: int
    return_sum: float
    profit: float
    """Simple profit as a fraction of the initial equity, like costs and turnover."""
    costs: float
    turnover: float
    drawdown: float


@dataclass(frozen=True, slots=True)
class EndEvent:
    """Episodes are over."""

    ended: tuple[Ended, ...]
    retired_rows: int = 0
    """Rows that play nothing any more, because the run ends."""


@dataclass(frozen=True, slots=True)
class OpenEvent:
    """A block wants its first episodes."""

    played: PlayedBlock


Event = MarketEvent | FillEvent | RewardEvent | SignalEvent | ActionEvent | OrderEvent | EndEvent | OpenEvent
"""Everything that travels between nodes."""
