"""Dashboards in Grafana's classic JSON model, which every Grafana can be provisioned with; newer ones convert it when they load it.

Queries are InfluxQL, the one language that InfluxDB 1, 2 and 3 share, and use only functions that all three have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from policyserver.monitoring import schema

COLUMNS = 24
"""Width of Grafana's grid."""

_DATASOURCE = {"type": "influxdb", "uid": "${datasource}"}
_SCHEMA_VERSION = 39
"""Of Grafana 11; a newer one migrates it."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel: a value over time, a series for each group."""

    measurement: str
    """Measurement of `policyserver.monitoring.schema`."""
    select: str
    """What is computed of each interval, e.g. 'mean("reward")'."""
    name: str = ""
    """Name of the series beside the groups' own; "" when the panel's title says it."""
    by: tuple[str, ...] = ("run",)
    """Tags that tell the series apart."""
    where: str = ""
    """Which points, besides those of the chosen runs, policies and symbols."""

    def influxql(self, filters: Sequence[str], *, whole_range: bool = False) -> str:
        """Word the query, for points that match the dashboard's variables as far as the measurement has such tags.

        Args:
            filters: the dashboard's variables that choose tags.
            whole_range: one value for the whole time range instead of one for each interval.
        """
        tags = schema.measurement(self.measurement).tags
        conditions = [f'"{tag}" =~ /^${tag}$/' for tag in filters if tag in tags]
        conditions += [self.where] if self.where else []
        groups = [f'"{tag}"' for tag in self.by]
        groups = groups if whole_range else ["time($__interval)", *groups]
        fill = "" if whole_range else " fill(none)"
        where = " AND ".join([*conditions, "$timeFilter"])
        return f'SELECT {self.select} FROM "{self.measurement}" WHERE {where} GROUP BY {", ".join(groups)}{fill}'

    @property
    def alias(self) -> str:
        """Name of each series, as Grafana's templates have it."""
        return " ".join([*(f"$tag_{tag}" for tag in self.by), self.name]).strip()


Levels = tuple[tuple[float | None, str], ...]
"""Colours of a figure: from which value on each holds, None for the lowest."""

PLAIN: Levels = ((None, "text"),)
"""Of a figure that is neither good nor bad."""
NONE_IS_GOOD: Levels = ((None, "green"), (1.0, "orange"))
"""Of a count that should be 0."""
ANY_IS_BAD: Levels = ((None, "green"), (1.0, "red"))
"""Of a count of errors."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart, or one row of figures."""

    title: str
    """What it shows."""
    description: str
    """What a reader should know to read it."""
    queries: tuple[Query, ...]
    """Its series."""
    unit: str = "short"
    """Grafana's name of the unit."""
    width: int = 12
    """Columns of the grid."""
    levels: Levels | None = None
    """Colours of a panel that shows one figure for each series; None: it shows a chart."""

    @property
    def stat(self) -> bool:
        """Whether it shows one figure for each series instead of a chart."""
        return self.levels is not None

    @property
    def height(self) -> int:
        """Rows of the grid."""
        return 4 if self.stat else 8


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard, named `policy-NAME` for as long as it exists: links and bookmarks hold on to its uid."""

    name: str
    """Short name, in the file's name and in the uid."""
    title: str
    """What the reader sees."""
    filters: tuple[str, ...]
    """Tags that the reader may choose by."""
    source: str
    """Measurement that is asked for the values of these tags."""
    panels: tuple[Panel, ...]
    """Panels, in reading order; they fill the grid row by row."""

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
        for number, panel in enumerate(self.panels, start=1):
            if x + panel.width > COLUMNS:
                x, y, row_height = 0, y + row_height, 0
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            made.append(_panel(panel, number, place, self.filters))
            x, row_height = x + panel.width, max(row_height, panel.height)
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


def _panel(panel: Panel, number: int, place: dict[str, int], filters: Sequence[str]) -> dict[str, Any]:
    """Return a panel at its place."""
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": _DATASOURCE,
            "rawQuery": True,
            "query": query.influxql(filters, whole_range=panel.stat),
            "resultFormat": "time_series",
            "alias": query.alias,
        }
        for index, query in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": "stat" if panel.stat else "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit} | (_LINES if panel.levels is None else _coloured(panel.levels)), "overrides": []},
        "options": _STAT if panel.stat else _CHART,
    }


def _coloured(levels: Levels) -> dict[str, Any]:
    """Return the colours of a figure. Grafana's own would be red from 80 on, whatever is counted."""
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
    """Return links to the other dashboards that keep the reader's choices and time range."""
    return {
        "type": "dashboards",
        "title": "Dashboards",
        "tags": ["policy-server"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
    }
