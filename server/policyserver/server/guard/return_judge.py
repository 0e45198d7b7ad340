"""Judges by the returns of episodes whether the policy has become worse than an earlier one, the incumbent.

The incumbent is a state that was saved before the episodes by which it is measured, so chance has not chosen it for them. A policy that is
better is saved, measured by later episodes, and is the next incumbent if it is better by these, too; until then the one before it stands.
After a roll-back the incumbent is measured again: where the world has become harder, its new mean is lower, and the next policies are held
to that.

The owner calls for each update, however long an incumbent stands. So each look has a share of the error, and all shares together are at
most what is allowed for one incumbent: the k-th look has 1 / (2 k (1 + ln k)^2) of it. The sum over all k is at most 1, for the first is
1/2 and the integral from 1 on is 1/2. A look tests the newest episodes, and the newer half of them, which sees a sudden fall sooner, each
at half of its share. The sum bounds the chance of an error whatever the looks have to do with each other, and for what was measured and not
taken as the incumbent, too.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from policyserver.server.guard.mann_whitney import chance_of_lower

_RANGES = 20
"""Ranges of epsilon, each 0.05 wide."""
_LOOKS = 6
"""There is a look for each sixth of a window of episodes, at most."""


class ReturnVerdict(Enum):
    """What is to be done."""

    SAVE = auto()
    """Save the present policy, and then `begin` to measure it."""
    REPLACE = auto()
    """What was saved is measured and is the incumbent now; the one before it may go."""
    KEEP = auto()
    """What was saved is measured and is not better than the incumbent; it may go."""
    ROLL_BACK = auto()
    """Go back to the incumbent, then `begin_again`."""


@dataclass(frozen=True)
class Measured:
    """Returns of some episodes."""

    episodes: int
    mean: float
    error: float
    """Standard error of the mean."""

    @classmethod
    def of(cls, returns: Sequence[float]) -> Measured:
        """Measure them."""
        return cls(len(returns), float(np.mean(returns)), float(np.std(returns, ddof=1) / math.sqrt(len(returns))))

    def __str__(self) -> str:
        """Show the mean with its error."""
        return f"{self.mean:.4g} ± {self.error:.2g}"


class ReturnJudge:
    """Compares the newest episodes with the incumbent's, one-sided. Owned by one thread."""

    def __init__(self, episodes: int, false_alarm: float, drop: float) -> None:
        """Begin without an incumbent.

        Args:
            episodes: Episodes by which a policy is measured.
            false_alarm: Greatest chance that one incumbent is ever gone back to while no policy after it is worse.
            drop: Least loss of the mean return that counts, as a share of what the incumbent's mean is above the lowest of any window.
        """
        self._episodes, self._false_alarm, self._drop = episodes, false_alarm, drop
        self._oldest_version = 0
        self._measured_from: int | None = None
        """Policy version from which on what was saved acts; None: nothing is being measured."""
        self._measuring: list[float] = []
        self._reference: list[float] = []
        """Returns of the incumbent; empty without one."""
        self._newest: deque[float] = deque(maxlen=episodes)
        """The newest returns since the incumbent was measured."""
        self._fresh = 0
        """Episodes since the last full window."""
        self._unseen = 0
        """Episodes since the last look."""
        self._looks = 0
        self._is_saving = False
        self._exploration = 0
        self._lowest = math.inf
        self.incumbent: Measured | None = None
        """The incumbent's returns; None while there is no incumbent that is measured."""
        self.newest: Measured | None = None
        """The newest window that was looked at."""
        self.in_a_row = 0
        """Verdicts to roll back without a window between them that was good enough."""

    def begin(self, version: int) -> None:
        """Measure what was saved, which is served from this policy version on. The incumbent stands until that is done."""
        self._measured_from, self._is_saving = version, False
        self._measuring.clear()

    def begin_again(self, version: int) -> None:
        """Measure the incumbent again, to which the server went back and which is served from this policy version on."""
        self.forget(version)
        self.begin(version)

    def decline(self) -> None:
        """Go on with the incumbent that there is, after a verdict to save that is not followed."""
        self._is_saving = False

    def forget(self, oldest_version: int = 0) -> None:
        """Do without an incumbent, until the next window of episodes of this policy version or later ones is one."""
        self._oldest_version = max(oldest_version, self._oldest_version)
        self._measured_from, self._is_saving, self.incumbent = None, False, None
        self._measuring.clear()
        self._reference.clear()
        self._newest.clear()
        self._fresh = self._unseen = self._looks = 0

    def add(self, episodes: Iterable[tuple[float, int]], exploration: int) -> ReturnVerdict | None:
        """Take episodes that ended, whole and explored, look, and return what is to be done now, if anything.

        Args:
            episodes: Return and policy version of each, in the order in which they ended.
            exploration: The range of exploration in which they were played; those of another range are not compared.
        """
        if exploration != self._exploration:
            self._exploration, self._lowest = exploration, math.inf
            is_saving = self._is_saving  # what is being saved is measured in the new range
            self.forget()
            self._is_saving = is_saving
        came = measured = 0
        for returned, version in episodes:
            if version < self._oldest_version:
                continue
            came += 1
            if self._measured_from is not None and version >= self._measured_from:
                self._measuring.append(returned)
                if len(self._measuring) == self._episodes:
                    measured = came
                    self._measured_from = None
            self._newest.append(returned)
        self._fresh, self._unseen = self._fresh + came, self._unseen + came
        if self._is_worse():
            self.in_a_row += 1
            return ReturnVerdict.ROLL_BACK
        if measured:
            return self._take_measured(came - measured)
        return self._judge_window()

    def _is_worse(self) -> bool:
        windows = [most for most in (self._episodes // 2, self._episodes) if most <= len(self._newest)]
        if self.incumbent is None or not windows or self._unseen < self._episodes // _LOOKS:
            return False
        self._unseen, self._looks = 0, self._looks + 1
        share = self._false_alarm / (2 * self._looks * (1 + math.log(self._looks)) ** 2)
        passes = max(0.0, self._drop * (self.incumbent.mean - self._lowest))
        for most in windows:
            window = list(self._newest)[-most:]
            measured = Measured.of(window)
            if self.incumbent.mean - measured.mean > passes and chance_of_lower(window, self._reference) <= share / 2:
                self.newest = measured
                return True
        return False

    def _take_measured(self, since: int) -> ReturnVerdict:
        """Have what was measured be the incumbent, if it is better; `since` episodes ended after those that measured it."""
        measured = Measured.of(self._measuring)
        if self.incumbent is not None and measured.mean < self.incumbent.mean:
            return ReturnVerdict.KEEP
        self.incumbent, self._reference = measured, list(self._measuring)
        self._lowest = min(self._lowest, measured.mean)
        newest = list(self._newest)[-since:] if since else []
        self._newest.clear()
        self._newest.extend(newest)
        self._fresh = self._unseen = since
        self._looks = 0
        return ReturnVerdict.REPLACE

    def _judge_window(self) -> ReturnVerdict | None:
        """Look at a full window of episodes, each of which is looked at here once."""
        if self._fresh < self._episodes or len(self._newest) < self._episodes:
            return None
        self._fresh = 0
        newest = self.newest = Measured.of(self._newest)
        self._lowest = min(self._lowest, newest.mean)
        if self.incumbent is not None:
            self.in_a_row = 0
        if self._is_saving or self._measured_from is not None:
            return None
        if self.incumbent is not None and newest.mean - self.incumbent.mean <= math.hypot(self.incumbent.error, newest.error):
            return None
        self._is_saving = True
        return ReturnVerdict.SAVE


def exploration_range(epsilon: float | Sequence[tuple[int, float]], steps: int) -> int:
    """Tell in which range an epsilon is after so many steps, if it is a number, or a schedule of (steps, epsilon) as RLlib has it."""
    if isinstance(epsilon, int | float):
        return int(epsilon * _RANGES)
    at, values = zip(*epsilon, strict=True)
    return int(float(np.interp(steps, at, values)) * _RANGES)
