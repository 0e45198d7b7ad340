from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from policyserver.pipelines.line_chart import Curve, Panel, draw, linear_axis, logarithmic_axis, plain, ticks

SVG = "{http://www.w3.org/2000/svg}"


def corners(line: ElementTree.Element) -> list[tuple[float, float]]:
    pairs = [point.split(",") for point in line.attrib["points"].split()]
    return [(float(x), float(y)) for x, y in pairs]


def test_on_logarithmic_axes_equal_ratios_are_equal_distances() -> None:
    curve = Curve("cost", ((1.0, 10.0), (10.0, 100.0), (100.0, 1_000.0)))
    panel = Panel("growth", (curve,), logarithmic_axis("clients", [1, 100]), logarithmic_axis("ms", [10, 1_000]))
    first, second, third = corners(ElementTree.fromstring(draw([panel])).findall(f"{SVG}polyline")[0])
    assert second[0] - first[0] == pytest.approx(third[0] - second[0])
    assert second[1] - first[1] == pytest.approx(third[1] - second[1])
    assert second[1] < first[1], "a larger value is higher up"


def test_panels_with_axes_of_their_own_name_their_ticks_and_those_with_the_same_do_not_again() -> None:
    x, small, large = linear_axis("s", [10]), linear_axis("ms", [5]), linear_axis("steps/s", [50_000])
    curve = Curve("p99", ((0.0, 0.0), (10.0, 5.0)))
    labels = [
        [
            text.text
            for text in ElementTree.fromstring(draw([Panel("a", (curve,), x, small), Panel("b", (curve,), x, y)])).iter(f"{SVG}text")
        ]
        for y in (small, large)
    ]
    assert labels[0].count("ms") == 1
    assert labels[1].count("ms") == labels[1].count("steps/s") == labels[1].count("50k") == 1


def test_curves_of_one_name_share_a_colour_and_a_line_of_the_legend() -> None:
    x, y = linear_axis("s", [1]), linear_axis("ms", [1])
    idle, busy = Curve("idle", ((0.0, 0.0), (1.0, 1.0))), Curve("busy", ((0.0, 0.0), (1.0, 1.0)))
    root = ElementTree.fromstring(draw([Panel("a", (idle, busy), x, y), Panel("b", (busy,), x, y)]))
    colours = [line.attrib["stroke"] for line in root.findall(f"{SVG}polyline")]
    assert colours[1] == colours[2] != colours[0]
    assert [text.text for text in root.iter(f"{SVG}text")].count("busy") == 1


def test_a_mark_is_an_upright_line_where_something_happened() -> None:
    panel = Panel("a", (), linear_axis("s", [10]), linear_axis("ms", [1]), marks=(5.0,))
    (mark,) = [line for line in ElementTree.fromstring(draw([panel])).iter(f"{SVG}line") if line.get("class") == "mark"]
    assert mark.attrib["x1"] == mark.attrib["x2"] == "202.0", "halfway between 52 and 352"


@pytest.mark.parametrize(("value", "text"), [(0.5, "0.5"), (20.0, "20"), (3_000.0, "3k"), (1_500_000.0, "1.5M")])
def test_a_tick_is_written_briefly(value: float, text: str) -> None:
    assert plain(value) == text


@pytest.mark.parametrize(("low", "high"), [(-17.3, 20.1), (0.0, 400_000.0), (0.0, 0.0), (-0.004, 0.001)])
def test_ticks_are_few_round_and_cover_the_range(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert marks[0] <= low
    assert marks[-1] >= high
    assert 1 <= len(marks) <= 10
