"""Charts: what matplotlib is told to draw, and that the SVG is whole."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes

from benchmarks.charts import Axis, Curve, Panel, draw, figure_of, plain

SVG = "{http://www.w3.org/2000/svg}"
S, MS = Axis("s"), Axis("ms")
RISING = Curve("rising", ((0.0, 0.0), (5.0, 2.0), (10.0, 5.0)))


def tick_labels(axes: Axes) -> list[str]:
    return [tick.label1.get_text() for tick in axes.yaxis.get_major_ticks() if tick.label1.get_visible()]


def test_a_chart_is_svg_with_its_words_as_text_and_a_path_for_each_curve() -> None:
    mark_and_curve = Panel("a & b", (RISING,), S, MS, marks=(5.0,))
    root = ElementTree.fromstring(draw([mark_and_curve, Panel("c", (Curve("flat", ((0.0, 1.0), (10.0, 1.0))), RISING), S, MS)]))
    assert {"a & b", "c", "rising", "flat", "s", "ms"} <= {text.text for text in root.iter(f"{SVG}text")}
    colours = [style.partition("stroke: ")[2][:7] for path in root.iter(f"{SVG}path") if "stroke: " in (style := path.get("style", ""))]
    assert colours.count("#0b6e99") == 2 + 1, "and one in the legend"
    assert colours.count("#d9730d") == 1 + 1
    assert colours.count("#dcc7e8") == 1, "the mark"


def test_the_same_chart_is_the_same_file() -> None:
    first, second = (draw([Panel("a", (RISING,), S, MS)]) for _ in range(2))
    assert first == second


def test_on_logarithmic_axes_equal_ratios_are_equal_distances() -> None:
    curve = Curve("cost", ((1.0, 10.0), (10.0, 100.0), (100.0, 1_000.0)))
    panel = Panel("growth", (curve,), Axis("clients", is_logarithmic=True), Axis("ms", is_logarithmic=True))
    (axes,) = figure_of([panel]).axes
    steps = np.diff(axes.transData.transform(curve.points), axis=0)
    assert steps[0] == pytest.approx(steps[1])
    assert (steps > 0).all(), "a larger value is higher up"
    assert axes.get_xlim() == pytest.approx((1.0, 100.0))


def test_a_linear_axis_ends_at_round_numbers_and_has_zero_on_it() -> None:
    (axes,) = figure_of([Panel("a", (Curve("c", ((3.0, -17.0), (97.0, -4.0))),), S, MS)]).axes
    assert axes.get_xlim() == (0.0, 100.0)
    assert axes.get_ylim() == pytest.approx((-18.0, 0.0))


def test_limits_that_are_given_hold_and_ticks_are_written_as_told() -> None:
    axis = Axis("of the calls are faster", is_logarithmic=True, limits=(1.0, 10_000.0), text=lambda value: f"{100 - 100 / value:g} %")
    texts = [text.text for text in ElementTree.fromstring(draw([Panel("a", (RISING,), axis, MS)])).iter(f"{SVG}text")]
    assert [text for text in texts if text and text.endswith(" %")] == ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]


def test_panels_with_equal_axes_have_one_scale_and_name_its_ticks_once() -> None:
    high = Curve("high", ((0.0, 0.0), (10.0, 50.0)))
    first, second = figure_of([Panel("a", (RISING,), S, MS), Panel("b", (high,), S, MS)]).axes
    assert first.get_ylim() == second.get_ylim() == (0.0, 50.0)
    assert (first.get_ylabel(), second.get_ylabel()) == ("ms", "")
    assert (len(tick_labels(first)) > 2, tick_labels(second)) == (True, [])
    first, second = figure_of([Panel("a", (RISING,), S, MS), Panel("b", (high,), S, Axis("steps/s"))]).axes
    assert first.get_ylim() == (0.0, 5.0)
    assert (first.get_ylabel(), second.get_ylabel()) == ("ms", "steps/s")
    assert len(tick_labels(second)) > 2


def test_curves_of_one_name_share_a_colour_and_a_line_of_the_legend() -> None:
    idle, busy = Curve("idle", RISING.points), Curve("busy", RISING.points)
    figure = figure_of([Panel("a", (idle, busy), S, MS), Panel("b", (busy,), S, MS)])
    (first, second), (third,) = (axes.lines for axes in figure.axes)
    assert second.get_color() == third.get_color() != first.get_color()
    assert [text.get_text() for text in figure.legends[0].texts] == ["idle", "busy"]


def test_a_mark_is_an_upright_line_where_something_happened() -> None:
    (axes,) = figure_of([Panel("a", (RISING,), S, MS, marks=(5.0,))]).axes
    mark, curve = axes.lines
    assert np.asarray(mark.get_xdata()).tolist() == [5.0, 5.0]
    assert np.asarray(curve.get_xdata()).tolist() == [0.0, 5.0, 10.0]


@pytest.mark.parametrize(("value", "text"), [(0.5, "0.5"), (20.0, "20"), (3_000.0, "3k"), (1_500_000.0, "1.5M"), (-5_000.0, "-5k")])
def test_a_tick_is_written_briefly(value: float, text: str) -> None:
    assert plain(value) == text
