"""Judges by the returns of episodes whether the policy has become worse than an earlier one, the incumbent.

The incumbent is a state that was saved before the episodes by which it is measured, so chance has not chosen it for them. A policy that is
better is saved as the next incumbent and measured again. After a roll-back the incumbent is measured again, too: where the world has become
harder, its new mean is lower, and the next policies are held to that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

_RANGES = 20
"""Ranges of epsilon, each 0.05 wide."""


class ReturnVerdict(Enum):
    """What is to be done."""

    SAVE = auto()
    """Save the present policy as the incumbent, then `begin`."""
    ROLL_BACK = auto()
    """Go back to the incumbent, then `begin`."""


@dataclass(frozen=True)
class Measured:
    """Returns of a window of episodes."""

    mean: float
    error: float
    """Standard error of the mean."""

    def __str__(self) -> str:
        """Show the mean with its error."""
        return f"{self.mean:.4g} ± {self.error:.2g}"


class ReturnJudge:
    """Compares windows of episodes with the incumbent's, one-sided. Owned by one thread."""

    def __init__(self, episodes: int, sigmas: float, drop: float) -> None:
        """Begin without an incumbent.

        Args:
            episodes: Episodes of a window.
            sigmas: Least difference of two means that counts, in standard errors of the difference.
            drop: Least difference that counts, as a share of what the incumbent's mean is above the lowest of any window.
        """
        self._episodes, self._sigmas, self._drop = episodes, sigmas, drop
        self._first_version: int | None = 0  # None: waits for `begin`
        self._version_before = 0
        self._exploration = 0
        self._returns: list[float] = []
        self._lowest = math.inf
        self.incumbent: Measured | None = None
        """The incumbent's returns; None while they are being measured."""
        self.newest: Measured | None = None
        """The newest window."""
        self._has_saved = False
        self.in_a_row = 0
        """Verdicts to roll back without a window between them that was good enough."""

    def begin(self, version: int) -> None:
        """Measure the incumbent, which is served from this policy version on."""
        self._first_version, self._has_saved, self.incumbent = version, True, None
        self._returns.clear()

    def decline(self) -> None:
        """Go on with the incumbent that there is, after a verdict that is not followed."""
        self._first_version = self._version_before

    def forget(self) -> None:
        """Do without an incumbent, until the next window is one."""
        self._first_version, self._has_saved, self.incumbent = 0, False, None
        self._returns.clear()

    def add(self, episodes: Iterable[tuple[float, int]], exploration: int) -> ReturnVerdict | None:
        """Take episodes that ended, whole and explored, and return what is to be done now, if anything.

        Args:
            episodes: Return and policy version of each, in the order in which they ended.
            exploration: The range of exploration in which they were played; those of another range are not compared.
        """
        if exploration != self._exploration:
            self._exploration, self._lowest = exploration, math.inf
            if self._first_version is not None:  # else what is being saved is measured in the new range
                self.forget()
        for returned, version in episodes:
            if self._first_version is None or version < self._first_version:
                continue
            self._returns.append(returned)
            if len(self._returns) == self._episodes and (verdict := self._judge()) is not None:
                self._version_before, self._first_version = self._first_version, None
                return verdict
        return None

    def _judge(self) -> ReturnVerdict | None:
        returns = np.array(self._returns)
        self._returns.clear()
        newest = self.newest = Measured(float(returns.mean()), float(returns.std(ddof=1) / math.sqrt(len(returns))))
        lowest, self._lowest = self._lowest, min(self._lowest, newest.mean)
        if not self._has_saved:
            return ReturnVerdict.SAVE
        if self.incumbent is None:
            self.incumbent = newest
            return None
        lost, error = self.incumbent.mean - newest.mean, math.hypot(self.incumbent.error, newest.error)
        if lost > max(self._sigmas * error, self._drop * (self.incumbent.mean - lowest)):
            self.in_a_row += 1
            return ReturnVerdict.ROLL_BACK
        self.in_a_row = 0
        return ReturnVerdict.SAVE if lost < -error else None


def exploration_range(epsilon: float | Sequence[tuple[int, float]], steps: int) -> int:
    """Tell in which range an epsilon is after so many steps, if it is a number, or a schedule of (steps, epsilon) as RLlib has it."""
    if isinstance(epsilon, int | float):
        return int(epsilon * _RANGES)
    at, values = zip(*epsilon, strict=True)
    return int(float(np.interp(steps, at, values)) * _RANGES)
