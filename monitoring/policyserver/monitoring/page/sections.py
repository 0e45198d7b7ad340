"""The page's curves over time: what each section reads, and what its charts draw."""

from __future__ import annotations

import json
import re
from typing import Any

from policyserver.monitoring.action import Action
from policyserver.monitoring.panels import PANELS
from policyserver.monitoring.panels.groups import GROUPS
from policyserver.monitoring.panels.panel import ChartPanel, Group
from policyserver.monitoring.panels.series import Series
from policyserver.monitoring.panels.table import Source


def _panels(group: Group) -> list[ChartPanel]:
    return [panel for panel in PANELS if panel.group == group.name]


def drawn(panel: ChartPanel, group: Group) -> list[Series]:
    """Return what the page draws of a panel."""
    return [each for each in panel.series if each.column and each.measurement == group.measurement]


def _source(group: Group) -> Source:
    """Return what a group's panels read, and their columns."""
    series = [each for panel in _panels(group) for each in drawn(panel, group)]
    return Source(
        group.name,
        group.measurement,
        {name: expression for each in series for name, expression in each.sums.items()},
        {name: expression for each in series for name, expression in each.maxima.items()},
        group.by,
        group.merged,
        {each.column: each.values for each in series if each.values is not None},
    )


SOURCES = tuple(
    _source(group) for group in sorted(GROUPS, key=lambda group: group.measurement == "step") if group.measurement
)  # steps come last, for they have by far the most rows
"""The source of every section that is made of buckets."""


def module() -> str:
    """Return static/panels.js, which tells the page's scripts what to draw, and the names of the actions."""
    groups, actions = [_worded(group) for group in GROUPS], [action.label for action in Action]
    return f"export const panels = {json.dumps(groups)};\nexport const actions = {json.dumps(actions)};\n"


def _worded(group: Group) -> dict[str, Any]:
    return {
        "title": group.title,
        "note": group.note,
        "data": group.data or group.name,
        "gapsOf": group.gaps_of,
        "wide": group.wide,
        "charts": [_chart(panel, group) for panel in _panels(group)],
    }


def _chart(panel: ChartPanel, group: Group) -> dict[str, Any]:
    curves = drawn(panel, group)
    labels = [each.label if len(curves) > 1 else "" for each in curves]  # the only curve needs no name beside the chart's
    series = [{"name": each.column, "color": each.color, "label": label, **each.style} for each, label in zip(curves, labels, strict=True)]
    name = re.sub("[^a-z]+", "-", (panel.title or group.name).partition(",")[0].lower())
    return {"id": name, "title": panel.title, "format": panel.unit.value[0], "series": series, "bands": panel.bands, **panel.look}
