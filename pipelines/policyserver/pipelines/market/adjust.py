"""Prices adjusted for splits and dividends, so that their returns are what a holder had.

The factor of a bar is anchored at the first price or at the last (as charts show it). Anchored at the first, no bar depends on a later one,
so that is the default. Anchored at the last, every past price depends on actions to come: returns and ratios don't, but levels, ticks and
fees for each share do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from policyserver.common.settings import Config
from policyserver.pipelines.market.bars import Bars, FloatArray
from policyserver.pipelines.market.unread import refuse_unread


@dataclass(frozen=True, slots=True)
class AdjustConfig(Config):
    """How prices are adjusted."""

    by: Literal["none", "adjusted_close", "actions"] = "none"
    """`adjusted_close`: by the file's column of it; `actions`: by its columns of splits and dividends."""
    splits: bool = False
    """With `actions`: whether prices are still to be divided by the splits. Yahoo's are divided already."""
    dividends: bool = True
    """With `actions`: whether the dividends are taken out of the prices before them."""
    anchor: Literal["first", "last"] = "first"
    """The bar whose prices stay as they are. `last`, as on charts: then every price knows the splits and dividends after it, which
    `policy-pipeline check-future` finds where levels, ticks or fees for each share play a part."""

    def _check(self) -> None:
        if self.by != "actions":
            refuse_unread(self, ("splits", "dividends"), 'without by = "actions"')
        if self.by == "none":
            refuse_unread(self, ("anchor",), 'with by = "none"')


def adjust(bars: Bars, extras: dict[str, FloatArray], config: AdjustConfig) -> Bars:
    """Return the adjusted bars; volumes are divided by the splits' factor.

    Args:
        bars: As recorded.
        extras: `adjusted_close`, or `split` (new shares for an old one) and `dividend` (for each share, on its first day without it),
            float64, one for each bar; 0 where nothing is paid or split.
        config: What to do.

    Raises:
        ValueError: A column is missing, or a dividend is not less than the close before it.
    """
    if config.by == "none" or not len(bars):
        return bars
    if config.by == "adjusted_close":
        factor, of_splits = _required(extras, "adjusted_close") / bars.close, np.ones(len(bars))
        if not ((factor > 0) & np.isfinite(factor)).all():
            row = int(np.flatnonzero(~((factor > 0) & np.isfinite(factor)))[0])
            raise ValueError(
                f"adjusted_close: expected a positive price for each bar, received {extras['adjusted_close'][row]} at bar {row}"
            )
        factor = factor / factor[-1 if config.anchor == "last" else 0]
    else:
        of_splits = _anchored(1 / _splits(extras), config.anchor) if config.splits else np.ones(len(bars))
        factor = of_splits * (_anchored(_dividend_factors(bars, extras, config.splits), config.anchor) if config.dividends else 1.0)
    opens, highs, lows, closes = (values * factor for values in (bars.open, bars.high, bars.low, bars.close))
    return Bars(bars.time_ns, opens, highs, lows, closes, bars.volume / of_splits)


def _required(extras: dict[str, FloatArray], name: str) -> FloatArray:
    if name not in extras:
        raise ValueError(f"adjust: expected a file with the column {name}, received {', '.join(extras) or 'none of its kind'}")
    return extras[name]


def _splits(extras: dict[str, FloatArray]) -> FloatArray:
    split = _required(extras, "split")
    return np.where(split > 0, split, 1.0)


def _dividend_factors(bars: Bars, extras: dict[str, FloatArray], splits_to_come: bool) -> FloatArray:
    """Return for each bar the share of the close before it that is left after its dividend."""
    dividend = _required(extras, "dividend")
    before = np.append(bars.close[:1], bars.close[:-1])
    if splits_to_come and "split" in extras:
        before = before / _splits(extras)  # the dividend is for a share after the split
    factors: FloatArray = 1 - dividend / before
    if not (factors > 0).all():
        row = int(np.flatnonzero(~(factors > 0))[0])
        raise ValueError(
            f"dividend: expected less than the close before it, {before[row]:.10g}, received {dividend[row]:.10g} at bar {row}"
        )
    return factors


def _anchored(factors: FloatArray, anchor: Literal["last", "first"]) -> FloatArray:
    """Return for each bar the product of the factors of all bars after it, or 1 over that of the bars up to it but the first."""
    if anchor == "last":
        return np.append(np.cumprod(factors[:0:-1])[::-1], 1.0)
    return np.append(1.0, 1.0 / np.cumprod(factors[1:]))
