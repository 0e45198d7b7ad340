"""Writes the dashboards in deploy/grafana/dashboards from the panels that `policyserver.monitoring.panels` declares.

    python -m deploy.grafana.make_dashboards

Run it in the repository's root after every change of a panel; tests compare the files and execute every query.
"""

from __future__ import annotations

import json
from pathlib import Path

from deploy.grafana.classic import Dashboard

FOLDER = Path("deploy/grafana/dashboards")

DASHBOARDS = (
    Dashboard("rewards", "Rewards", ("run", "policy", "symbol"), "episode"),
    Dashboard("learner", "Learner", ("run", "policy"), "train"),
    Dashboard("serving", "Serving", ("run", "policy"), "server"),
    Dashboard("pipelines", "Pipelines", ("run", "policy", "symbol"), "step"),
)


def rendered() -> dict[str, str]:
    """Return the text of each file, by its name."""
    return {f"{each.name}.json": json.dumps(each.classic(), indent=2) + "\n" for each in DASHBOARDS}


if __name__ == "__main__":
    for name, text in rendered().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
