"""Learning curves: mean returns over steps, as a run recorded them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.charts import Axis, Curve, Panel, draw
from policyserver.monitoring.store.reader import StoreReader
from policyserver.pipelines.demo.demo import DemoResult
from policyserver.pipelines.demo.setup import STORE_FILE

_POINTS = 80
_RETURNS_OVER_TIME = """
SELECT AVG("return"), AVG(no_trade_return), AVG(random_return), COUNT(*) FROM whole_episode,
(SELECT MIN(time_ns) AS first_ns, MAX(time_ns) AS last_ns FROM whole_episode WHERE run = :run)
WHERE run = :run GROUP BY (time_ns - first_ns) / ((last_ns - first_ns) / :points + 1) ORDER BY MIN(time_ns)
"""
_STEPS, _RETURNS = Axis("steps"), Axis("mean return of an episode")


def picture(curves: Mapping[str, Sequence[Curve]]) -> str:
    """Return the SVG of the curves under each title, side by side on common axes."""
    return draw([Panel(title, tuple(below), _STEPS, _RETURNS) for title, below in curves.items()])


def learning_curve(name: str, result: DemoResult, column: str) -> Curve:
    """Return `mean`, `no_trade` or `random` of a run's returns over its steps, as recorded."""
    series = returns(result, _POINTS)
    episodes = np.cumsum([row["episodes"] for row in series])
    steps = episodes / max(float(episodes[-1]), 1.0) * result.summary.steps if len(episodes) else episodes
    points = [(float(x), float(row[column])) for x, row in zip(steps, series, strict=True) if row[column] is not None]
    return Curve(name, tuple(points))


def returns(result: DemoResult, points: int) -> list[dict[str, Any]]:
    """Return the mean returns of the whole episodes of equal parts of a run's time, and the number of `episodes`."""
    reader = StoreReader(result.folder / STORE_FILE)
    try:
        rows = reader.select(_RETURNS_OVER_TIME, {"run": result.folder.name, "points": points})
    finally:
        reader.close()
    return [dict(zip(("mean", "no_trade", "random", "episodes"), row, strict=True)) for row in rows]
