"""Adjustment: the returns of adjusted prices are those of a holder who puts every dividend into new shares."""

from __future__ import annotations

import numpy as np
import pytest

from policyserver.pipelines.market.adjust import AdjustConfig, adjust
from policyserver.pipelines.market.bars import Bars, FloatArray


def history(seed: int = 1, n: int = 300) -> tuple[Bars, dict[str, FloatArray]]:
    """Raw prices of a share with splits and dividends."""
    rng = np.random.default_rng(seed)
    split, dividend = np.zeros(n), np.zeros(n)
    split[[50, 180]] = (2.0, 0.1)
    dividend[[30, 50, 90, 150, 210, 270]] = (0.5, 0.7, 0.4, 0.4, 0.9, 1.1)
    close = np.empty(n)
    price = 100.0
    for i in range(n):
        price = (price / (split[i] or 1.0) - dividend[i]) * np.exp(rng.normal(0, 0.01))
        close[i] = price
    volume = rng.integers(100, 999, n).astype(float)
    return Bars(np.arange(n, dtype=np.int64), close * 0.999, close * 1.002, close * 0.998, close, volume), {
        "split": split,
        "dividend": dividend,
    }


def wealth(bars: Bars, extras: dict[str, FloatArray]) -> FloatArray:
    """What one share becomes, with each dividend put into shares at the close before, less the dividend."""
    shares, worth = 1.0, [bars.close[0]]
    for i in range(1, len(bars)):
        shares *= extras["split"][i] or 1.0
        before = bars.close[i - 1] / (extras["split"][i] or 1.0)
        shares *= before / (before - extras["dividend"][i])
        worth.append(shares * bars.close[i])
    return np.array(worth)


@pytest.mark.parametrize("anchor", ["last", "first"])
def test_adjusted_returns_are_the_holders(anchor: str) -> None:
    bars, extras = history()
    adjusted = adjust(bars, extras, AdjustConfig("actions", splits=True, anchor=anchor))  # type: ignore[arg-type]
    worth = wealth(bars, extras)
    np.testing.assert_allclose(adjusted.close / adjusted.close[0], worth / worth[0], rtol=1e-12)
    assert adjusted.close[-1 if anchor == "last" else 0] == pytest.approx(bars.close[-1 if anchor == "last" else 0])
    np.testing.assert_allclose(adjusted.high / adjusted.close, bars.high / bars.close)


def test_the_wrong_variant_that_takes_the_factor_a_bar_late_is_not_the_holders() -> None:
    bars, extras = history()
    late = {name: np.roll(values, 1) for name, values in extras.items()}
    adjusted, worth = adjust(bars, late, AdjustConfig("actions", splits=True)), wealth(bars, extras)
    assert not np.allclose(adjusted.close / adjusted.close[0], worth / worth[0], rtol=1e-2)


def test_anchored_at_the_first_bar_no_price_depends_on_a_later_action() -> None:
    bars, extras = history()
    changed = {name: values.copy() for name, values in extras.items()}
    changed["dividend"][200:] = 0
    at_last = AdjustConfig("actions", splits=True, anchor="last")
    for config, is_causal in ((AdjustConfig("actions", splits=True), True), (at_last, False)):  # the default does not look ahead
        one, other = (adjust(bars, each, config).close[:200] for each in (extras, changed))
        assert np.allclose(one, other) == is_causal


def test_volumes_go_the_other_way_by_splits_alone() -> None:
    bars, extras = history()
    adjusted = adjust(bars, extras, AdjustConfig("actions", splits=True, anchor="last"))
    np.testing.assert_allclose(adjusted.volume[180:], bars.volume[180:])
    np.testing.assert_allclose(adjusted.volume[50:180], bars.volume[50:180] * 0.1)
    np.testing.assert_allclose(adjusted.volume[:50], bars.volume[:50] * 0.2)


def test_an_adjusted_close_scales_the_whole_bar() -> None:
    bars, _ = history()
    config = AdjustConfig("adjusted_close", anchor="last")
    adjusted = adjust(bars, {"adjusted_close": bars.close * np.linspace(0.5, 1, len(bars))}, config)
    np.testing.assert_allclose(adjusted.close, bars.close * np.linspace(0.5, 1, len(bars)))
    np.testing.assert_allclose(adjusted.low, bars.low * np.linspace(0.5, 1, len(bars)))
    np.testing.assert_array_equal(adjusted.volume, bars.volume)


def test_none_leaves_the_bars_as_they_are_and_a_missing_column_is_named() -> None:
    bars, extras = history()
    assert adjust(bars, {}, AdjustConfig()) is bars
    with pytest.raises(ValueError, match="expected a file with the column adjusted_close, received split, dividend"):
        adjust(bars, extras, AdjustConfig("adjusted_close"))
    extras["dividend"][90] = 1_000
    with pytest.raises(ValueError, match=r"dividend: expected less than the close before it, .* at bar 90"):
        adjust(bars, extras, AdjustConfig("actions"))
