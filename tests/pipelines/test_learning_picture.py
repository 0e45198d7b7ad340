from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from policyserver.pipelines.learning_picture import VariantPanel, draw
from policyserver.pipelines.line_chart import Curve

SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_is_svg_with_a_line_for_each_curve_inside_its_frame() -> None:
    rising = Curve("policy", ((0.0, -17.0), (200_000.0, 5.0), (400_000.0, 19.0)))
    flat = Curve("random", ((0.0, -16.0), (400_000.0, -16.5)))
    panels = [VariantPanel("first & best", (rising, flat)), VariantPanel("second", (Curve("policy", ((0.0, -15.0), (400_000.0, 0.0))),))]
    root = ElementTree.fromstring(draw(panels))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    lines = root.findall(f"{SVG}polyline")
    assert len(lines) == 3
    for line in lines:
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
    heights = [float(point.split(",")[1]) for point in lines[0].attrib["points"].split()]
    assert heights == sorted(heights, reverse=True), "a return that grows goes up"
    assert {"first & best", "second", "policy", "random"} <= {text.text for text in root.iter(f"{SVG}text")}


def test_curves_without_points_are_drawn_as_nothing() -> None:
    assert "polyline" in draw([VariantPanel("empty", (Curve("policy", ()),))])
