"""The picture of learning curves: what it shows, drawn for real."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from benchmarks.charts import Curve
from benchmarks.market.picture import picture

SVG = "{http://www.w3.org/2000/svg}"


def test_variants_stand_side_by_side_on_axes_that_are_named_once() -> None:
    policy, random = Curve("policy", ((0.0, -17.0), (400_000.0, 19.0))), Curve("random", ((0.0, -16.0), (400_000.0, -16.5)))
    texts = [text.text for text in ElementTree.fromstring(picture({"first": [policy, random], "second": [policy]})).iter(f"{SVG}text")]
    for named_once in ("first", "second", "policy", "random", "mean return of an episode"):
        assert texts.count(named_once) == 1
    assert texts.count("steps") == 2
    assert texts.count("400k") == 2


def test_a_run_that_recorded_no_return_has_an_empty_diagram() -> None:
    ElementTree.fromstring(picture({"empty": [Curve("policy", ())]}))
