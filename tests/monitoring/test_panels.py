"""The panel list: each panel is shown somewhere, draws what is recorded, and is told apart from the others."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from deploy.grafana.make_dashboards import DASHBOARDS
from policyserver.common.figures import figures
from policyserver.common.server_stats import ServerStats, TrainingIteration
from policyserver.monitoring.page import sections, server
from policyserver.monitoring.panels import PANELS
from policyserver.monitoring.panels.groups import GROUPS
from policyserver.monitoring.panels.panel import ChartPanel
from policyserver.monitoring.schema import measurement

COLORS = set(re.findall(r"--(\w+):", (Path(server.__file__).parent / "static" / "page.css").read_text(encoding="utf-8")))
each_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel.group}-{panel.dashboard}-{panel.title}")


@each_panel
def test_a_panel_is_shown_somewhere(panel: ChartPanel) -> None:
    assert panel.group or panel.dashboard
    assert panel.group in {"", *(group.name for group in GROUPS)}
    assert panel.dashboard in {"", *(dashboard.name for dashboard in DASHBOARDS)}
    assert not panel.dashboard or (panel.title and panel.description)


@each_panel
def test_a_panel_reads_what_is_recorded(panel: ChartPanel) -> None:
    for each in panel.series:
        if each.measurement:
            known = {*measurement(each.measurement).types, *measurement(each.measurement).tags, "time_ns"}
            asked = re.findall(r'"(\w+)"', f"{each.select} {each.where}") if panel.dashboard else []
            words = " ".join([*each.sums.values(), *each.maxima.values(), *asked])
            assert set(re.findall(r"[a-z]\w+", words)) <= known, panel.title
            assert set(each.tags) <= set(measurement(each.measurement).tags)


@each_panel
def test_the_page_has_the_colours_of_a_panel(panel: ChartPanel) -> None:
    assert {each.color for each in panel.series if panel.group and each.column} <= COLORS | {""}


def test_the_page_tells_its_charts_and_columns_apart() -> None:
    described = json.loads(sections.module().partition(" = ")[2].partition(";\n")[0])
    ids = Counter(chart["id"] for group in described for chart in group["charts"])
    assert ids.total() == sum(1 for panel in PANELS if panel.group)
    assert [id for id, times in ids.items() if times > 1] == []
    for group in GROUPS:
        columns = Counter(each.column for panel in PANELS if panel.group == group.name for each in sections.drawn(panel, group))
        assert columns, group.name
        assert max(columns.values()) == 1, columns


@pytest.mark.parametrize(("statistics", "place"), [(TrainingIteration, "learner"), (ServerStats, "serving")])
def test_a_figure_that_is_declared_with_a_chart_is_on_the_page_and_in_grafana(statistics: type, place: str) -> None:
    titles = [panel.title.partition(",")[0] for panel in PANELS if panel.group == panel.dashboard == place]
    declared = [figure.chart for figure in figures(statistics).values() if figure.chart]
    assert declared
    assert set(declared) <= set(titles)
