"""Every panel of the page and of Grafana's dashboards, declared once, in the order in which they are shown.

Imports `common.figures`, `common.server_stats` and `monitoring.action`.
"""

from __future__ import annotations

from policyserver.monitoring.panels import learner, pipelines, rewards, serving

PANELS = (*rewards.PANELS, *learner.PANELS, *serving.PANELS, *pipelines.PANELS)
