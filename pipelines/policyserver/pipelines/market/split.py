"""Which bars are for training and which for testing: cut in time, before anything is fitted, with a purge between.

An episode that first plays bar t has seen the bars t - window to t - 1, and is judged by the bars from t to its last one. So that no bar is
on both sides, none is played in the window - 1 + label bars between training and testing; the warm-up of testing may lie there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Interval

from policyserver.common.settings import Config, SettingsError
from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.intervals import SECOND_NS
from policyserver.pipelines.market.unread import refuse_unread

Side = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class SplitConfig(Config):
    """How time is cut, for all symbols at the same moments, and which part a run plays."""

    play: Side | Literal["both"] = "train"
    """Which part is played. While the test part is, the policy does not learn. `both`: one after the other, of each fold; with
    `windows.order = "walk_forward"` and `policy-pipeline run`, `demo` and `check-future`."""
    fold: Annotated[int, Ge(0)] | None = None
    """Which fold, from 0; none: the only one, or, with `windows.order = "walk_forward"`, all of them."""
    folds: Annotated[int, Ge(1)] = 1
    """Folds. 1: training, then testing; more: walking forward, the time after the first training in as many equal parts, each of which is
    tested after a training that ends before it."""
    train_fraction: Annotated[float, Interval(gt=0, lt=1)] = 0.8
    """Share of the time that is before the first testing, unless `test_from` says when it begins."""
    train_from: str = ""
    """Date at which training begins, such as "2020-01-01", UTC; "": with the first bar of all symbols."""
    test_from: str = ""
    """Date at which the first testing begins; "": as `train_fraction` says."""
    test_until: str = ""
    """Date before which testing ends; "": with the last bar of all symbols."""
    is_anchored: bool = False
    """Whether the training of every fold begins with the first one's; else all are of one length."""
    embargo_bars: Annotated[int, Ge(0)] = 0
    """Bars of purge beyond what labels and observations ask for."""
    learns_on_test: bool = False
    """Whether `episodes.training_enabled = true` is meant while the test part is played."""

    def _check(self) -> None:
        for name in ("train_from", "test_from", "test_until"):
            if text := getattr(self, name):
                try:
                    np.datetime64(text, "ns")
                except ValueError as error:
                    raise ValueError(f"{name}: expected a date such as 2023-01-01, received {text!r}") from error
        if self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"fold: expected 0 to {self.folds - 1}, received {self.fold}")
        if self.test_from:
            refuse_unread(self, ("train_fraction",), "beside test_from, which says when the first testing begins")
        if self.folds == 1:
            refuse_unread(self, ("is_anchored",), "with one fold")

    @property
    def side(self) -> Side:
        """The part that is played.

        Raises:
            SettingsError: Both are, one after the other.
        """
        if self.play == "both":
            raise SettingsError(
                "prices.split.play", "", "expected train or test outside of policy-pipeline run, demo and check-future, received 'both'"
            )
        return self.play


@dataclass(frozen=True, slots=True)
class Cut:
    """When the parts of a fold begin and end: nanoseconds since 1970; a bar belongs to the part in which it ends."""

    train_from: int
    test_from: int
    test_until: int
    """Exclusive, like the end of training."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Rows of one symbol that episodes may play: `start` inclusive, `stop` exclusive."""

    train: tuple[int, int]
    """For training."""
    test: tuple[int, int]
    """For testing; either is empty where the symbol has no bars."""

    def of(self, side: Side) -> tuple[int, int]:
        """Return the rows of a part."""
        return self.train if side == "train" else self.test


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a decision reaches: what the purge has to cover, and how long a warm-up has to be."""

    window_bars: int
    """Bars of the longest observation, that of the decision included: at least 1."""
    label_bars: int = 1
    """Bars after the decision by which it is judged or from which a forecast learns: at least 1."""

    @property
    def purge_bars(self) -> int:
        """Bars between the last one of training and the first one of testing."""
        return self.window_bars - 1 + self.label_bars


def cut(first_ns: int, last_ns: int, config: SplitConfig) -> list[Cut]:
    """Return the folds of the time from the first bar of all symbols to the last.

    Raises:
        ValueError: The dates don't follow each other.
    """
    begin = _time(config.train_from) if config.train_from else first_ns
    end = _time(config.test_until) if config.test_until else last_ns + 1
    test_from = _time(config.test_from) if config.test_from else begin + int((end - begin) * config.train_fraction)
    if not begin < test_from < end:
        dates = [str(np.datetime64(time // SECOND_NS, "s")) for time in (begin, test_from, end)]
        raise ValueError(f"test_from: expected a time between {dates[0]} and {dates[2]}, received {dates[1]}")
    bounds = [test_from + (end - test_from) * number // config.folds for number in range(config.folds + 1)]
    starts = [begin if config.is_anchored else begin + bound - test_from for bound in bounds]
    return [Cut(*times) for times in zip(starts, bounds[:-1], bounds[1:], strict=False)]


def split(time_ns: IntArray, cuts: Sequence[Cut], purge_bars: int) -> list[Fold]:
    """Return the folds of one symbol's bars: the purge lies before the testing, which so begins where it was asked for.

    Args:
        time_ns: Ends of the bars.
        cuts: The folds' times.
        purge_bars: Bars between training and testing.
    """
    folds = []
    for times in cuts:
        start, test, stop = np.searchsorted(time_ns, [times.train_from, times.test_from, times.test_until], side="left").tolist()
        folds.append(Fold((start, max(start, test - purge_bars)), (test, stop)))
    return folds


def _time(date: str) -> int:
    return int(np.datetime64(date, "ns").astype(np.int64))
