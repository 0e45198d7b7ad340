"""What a measurement is: a contender, what it is held against in the same run, and the figures to reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.speed.servers import Servers
from benchmarks.windows import Window

Contender = Callable[[Servers], AbstractContextManager[Window]]
"""Sets up what is measured, once for all its windows."""

THROUGHPUT = "steps_per_s"
LATENCIES = ("p50_ms", "p99_ms")


@dataclass(frozen=True)
class Bar:
    """A figure to reach."""

    key: str
    """Which of the result's keys it is about."""
    at_least: float = float("-inf")
    """Smallest value that meets it."""
    at_most: float = float("inf")
    """Largest value that meets it."""

    def met(self, result: Mapping[str, Any]) -> bool | None:
        """Tell whether a result meets the bar; None if it does not have the figure."""
        return bool(self.at_least <= result[self.key] <= self.at_most) if self.key in result else None

    def on_slower_machine(self, factor: float) -> Bar:
        """Return the bar for a machine that has `factor` of the speed of the one it was set for; others than of speed stay."""
        if self.key == THROUGHPUT:
            return replace(self, at_least=self.at_least * factor)
        return replace(self, at_most=self.at_most / factor) if self.key in LATENCIES else self

    def __str__(self) -> str:
        if self.at_least == self.at_most:
            return f"{self.key} = {_number(self.at_least)}"
        return f"{self.key} >= {_number(self.at_least)}" if self.at_least > float("-inf") else f"{self.key} <= {_number(self.at_most)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@dataclass(frozen=True)
class Floor:
    """A bare gRPC echo that a case's throughput is held against."""

    callers: int
    """Callers that each wait for one answer before they send the next message."""
    steps_per_message: int = 1
    """Steps whose bytes one message carries."""
    steps_per_s_where_bars_were_set: float = 0.0
    """What it reached on the machine that the bars were set on; slower machines get bars in proportion."""

    def __str__(self) -> str:
        callers = f"{self.callers} caller{'s' * (self.callers > 1)}"
        return f"{callers}, {self.steps_per_message} step{'s' * (self.steps_per_message > 1)} a message"


@dataclass(frozen=True)
class Beside:
    """Another case that a case is held against: its windows alternate with this one's."""

    case: str
    """Name of the other case, which comes before."""
    called: str
    """What the ratios call it: `throughput_of_CALLED`, `p50_of_CALLED`, `p99_of_CALLED`."""


@dataclass(frozen=True)
class Case:
    """One measurement."""

    name: str
    """Name of the case and of its file."""
    says: str
    """What is done, in one line for the report."""
    contender: Contender
    """What is measured."""
    bars: tuple[Bar, ...] = ()
    """The figures to reach."""
    floor: Floor | None = None
    """The echo that the throughput is held against."""
    peer: str | None = None
    """Name of the peer that the throughput is held against."""
    beside: Beside | None = None
    """The case that it is held against."""
    window_s: float = 10.0
    """Length of a measured window, unless the command line says another."""
    rounds: int = 3
    """Windows of it and of what it is held against, in alternation."""
