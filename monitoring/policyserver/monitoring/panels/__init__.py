"""Every panel of the page and of Grafana's dashboards, declared once, in the order in which they are shown.

Imports the declared figures of `policyserver.common`, the actions, and numpy.
"""

from __future__ import annotations

from policyserver.monitoring.panels import learner, pipelines, rewards, serving

PANELS = (*rewards.PANELS, *learner.PANELS, *serving.PANELS, *pipelines.PANELS)
