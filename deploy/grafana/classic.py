"""Dashboards in Grafana's classic JSON model, which every Grafana can load; newer ones convert it.

Queries are in InfluxQL, the language that InfluxDB 1, 2 and 3 share, with functions that all three have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from policyserver.monitoring import schema
from policyserver.monitoring.panels import PANELS
from policyserver.monitoring.panels.panel import ChartPanel, Levels
from policyserver.monitoring.panels.series import Series

COLUMNS = 24
"""Width of Grafana's grid."""
_CHART_ROWS, _FIGURE_ROWS = 8, 4
"""Heights of panels in the grid."""

_DATASOURCE = {"type": "influxdb", "uid": "${datasource}"}
_SCHEMA_VERSION = 39
"""Of Grafana 11; a newer one migrates it."""


def influxql(series: Series, filters: Sequence[str], *, whole_range: bool = False) -> str:
    """Return a query for points that match the dashboard's variables, as far as the measurement has such tags.

    Args:
        series: What is asked for: a curve for each group.
        filters: The dashboard's variables, which are tags.
        whole_range: Ask for one value in the whole time range, not for one in each interval.
    """
    tags = schema.measurement(series.measurement).tags
    conditions = [f'"{tag}" =~ /^${tag}$/' for tag in filters if tag in tags]
    conditions += [series.where] if series.where else []
    groups = [f'"{tag}"' for tag in series.tags]
    groups = groups if whole_range else ["time($__interval)", *groups]
    fill = "" if whole_range else " fill(none)"
    where = " AND ".join([*conditions, "$timeFilter"])
    return f'SELECT {series.select} FROM "{series.measurement}" WHERE {where} GROUP BY {", ".join(groups)}{fill}'


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard, whose uid `policy-NAME` never changes: links and bookmarks hold it."""

    name: str
    """Short name, of the file and in the uid."""
    title: str
    """Title for the reader."""
    filters: tuple[str, ...]
    """Tags that the reader may choose."""
    source: str
    """Measurement that has the values of these tags."""

    def classic(self) -> dict[str, Any]:
        """Return Grafana's classic model."""
        return {
            "uid": f"policy-{self.name}",
            "title": self.title,
            "tags": ["policy-server"],
            "schemaVersion": _SCHEMA_VERSION,
            "editable": False,
            "graphTooltip": 1,
            "refresh": "5s",
            "time": {"from": "now-30m", "to": "now"},
            "timezone": "browser",
            "annotations": {"list": []},
            "links": [_link_to_the_others()],
            "templating": {"list": [_DATASOURCE_VARIABLE, *(_tag_variable(tag, self.source) for tag in self.filters)]},
            "panels": self._panels(),
        }

    def _panels(self) -> list[dict[str, Any]]:
        """Number the panels and lay them out from left to right, row by row."""
        made: list[dict[str, Any]] = []
        x = y = row_height = 0
        for number, panel in enumerate((each for each in PANELS if each.dashboard == self.name), start=1):
            height = _CHART_ROWS if panel.levels is None else _FIGURE_ROWS
            if x + panel.width > COLUMNS:
                x, y, row_height = 0, y + row_height, 0
            place = {"x": x, "y": y, "w": panel.width, "h": height}
            made.append(_panel(panel, number, place, self.filters))
            x, row_height = x + panel.width, max(row_height, height)
        return made


_DATASOURCE_VARIABLE = {
    "name": "datasource",
    "label": "InfluxDB",
    "type": "datasource",
    "query": "influxdb",
    "refresh": 1,
    "hide": 0,
    "current": {},
}


def _tag_variable(tag: str, measurement: str) -> dict[str, Any]:
    """Return a choice of any number of a tag's values, all of them at first."""
    query = f'SHOW TAG VALUES FROM "{measurement}" WITH KEY = "{tag}"'
    return {
        "name": tag,
        "label": tag.capitalize(),
        "type": "query",
        "datasource": _DATASOURCE,
        "query": query,
        "definition": query,
        "refresh": 2,  # with every change of the time range
        "sort": 2 if tag == "run" else 1,  # runs are named after their time: the newest first
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _panel(panel: ChartPanel, number: int, place: dict[str, int], filters: Sequence[str]) -> dict[str, Any]:
    """Return a panel at its place."""
    is_figure = panel.levels is not None
    asked = [each for each in panel.series if each.select]
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": _DATASOURCE,
            "rawQuery": True,
            "query": influxql(each, filters, whole_range=is_figure),
            "resultFormat": "time_series",
            "alias": _alias(each, alone=len(asked) == 1),
        }
        for index, each in enumerate(asked)
    ]
    return {
        "id": number,
        "type": "stat" if is_figure else "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "targets": targets,
        "fieldConfig": {
            "defaults": {"unit": panel.unit.value[1]} | (_LINES if panel.levels is None else _coloured(panel.levels)),
            "overrides": [],
        },
        "options": _STAT if is_figure else _CHART,
    }


def _alias(series: Series, *, alone: bool) -> str:
    """Name each curve with Grafana's template; the only curve of a panel needs no name besides the panel's."""
    return " ".join([*(f"$tag_{tag}" for tag in series.tags), "" if alone else series.label]).strip()


def _coloured(levels: Levels) -> dict[str, Any]:
    """Return the colours of a figure. Grafana's defaults would be red from 80 on."""
    steps = [{"color": color, "value": value} for value, color in levels]
    return {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": steps}}


_LINES = {"custom": {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 0, "showPoints": "auto", "spanNulls": True}}
_CHART = {
    "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
    "tooltip": {"mode": "multi", "sort": "desc"},
}
_STAT = {
    "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    "colorMode": "value",
    "graphMode": "none",
    "textMode": "auto",
}


def _link_to_the_others() -> dict[str, Any]:
    """Return links to the other dashboards, which keep the reader's choices and time range."""
    return {
        "type": "dashboards",
        "title": "Dashboards",
        "tags": ["policy-server"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
    }
