"""Which bars are for training and which for testing: cut in time, before anything is fitted, with a purge between.

A decision at bar t is made of the bars t - window + 1 to t and judged by the bars up to t + label. So that no bar is on both sides, no
decision is made in the window - 1 + label bars between training and testing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Interval

from policyserver.common.settings import Config
from policyserver.pipelines.market.bars import IntArray


@dataclass(frozen=True, slots=True)
class Fold:
    """Rows of one symbol at whose close decisions are made: `start` inclusive, `stop` exclusive."""

    train: tuple[int, int]
    """For training."""
    test: tuple[int, int]
    """For testing; empty where the purge leaves nothing."""


@dataclass(frozen=True, slots=True)
class SplitConfig(Config):
    """How time is cut."""

    method: Literal["none", "once", "walk_forward"] = "none"
    """`once`: training, then testing; `walk_forward`: that again and again, each time later."""
    train_fraction: Annotated[float, Interval(gt=0, lt=1)] = 0.8
    """With `once`: share of the time that is for training, unless `test_from` says when it ends."""
    test_from: str = ""
    """With `once`: date at which testing begins, such as "2023-01-01", UTC."""
    train_bars: Annotated[int, Ge(1)] = 10_000
    """With `walk_forward`: bars of training of the first fold, and of each where it is not anchored."""
    test_bars: Annotated[int, Ge(1)] = 1_000
    """With `walk_forward`: bars of testing of each fold; the next fold begins so much later."""
    is_anchored: bool = False
    """With `walk_forward`: whether training always begins with the first bar."""
    embargo_bars: Annotated[int, Ge(0)] = 0
    """Bars of purge beyond what labels and observations ask for."""

    def _check(self) -> None:
        if self.test_from:
            try:
                np.datetime64(self.test_from, "ns")
            except ValueError as error:
                raise ValueError(f"test_from: expected a date such as 2023-01-01, received {self.test_from!r}") from error


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a decision reaches: what the purge has to cover."""

    window_bars: int
    """Bars of the longest observation, that of the decision included: at least 1."""
    label_bars: int
    """Bars after the decision by which it is judged or from which a forecast learns: at least 1."""

    @property
    def purge_bars(self) -> int:
        """Bars between the last training decision and the first test decision."""
        return self.window_bars - 1 + self.label_bars


def split(time_ns: IntArray, config: SplitConfig, reach: Reach) -> list[Fold]:
    """Return the folds of one symbol's bars.

    Args:
        time_ns: Ends of the bars. Symbols with other bars are cut at the same times if `test_from` says when.
        config: How to cut.
        reach: What the purge has to cover.

    Raises:
        ValueError: There are not enough bars for a fold.
    """
    n_bars, purge = len(time_ns), reach.purge_bars + config.embargo_bars
    if config.method == "none":
        return [Fold((0, n_bars), (n_bars, n_bars))]
    folds = [_once(time_ns, config, purge)] if config.method == "once" else _walk_forward(n_bars, config, purge)
    if not folds or min(stop - start for fold in folds for start, stop in (fold.train, fold.test)) < 1:
        raise ValueError(f"split: expected bars for training, a purge of {purge} bars and testing, received {n_bars} bars")
    return folds


def _once(time_ns: IntArray, config: SplitConfig, purge: int) -> Fold:
    """Return the one fold: the purge lies before the cut, so that testing begins where it was asked for."""
    if config.test_from:
        cut = int(np.searchsorted(time_ns, np.datetime64(config.test_from, "ns").astype(np.int64), side="left"))
    else:
        cut = int(np.searchsorted(time_ns, time_ns[0] + int((time_ns[-1] - time_ns[0]) * config.train_fraction), side="right"))
    return Fold((0, max(cut - purge, 0)), (cut, len(time_ns)))


def _walk_forward(n_bars: int, config: SplitConfig, purge: int) -> list[Fold]:
    folds = []
    for cut in range(config.train_bars + purge, n_bars - config.test_bars + 1, config.test_bars):
        start = 0 if config.is_anchored else cut - purge - config.train_bars
        folds.append(Fold((start, cut - purge), (cut, cut + config.test_bars)))
    return folds
