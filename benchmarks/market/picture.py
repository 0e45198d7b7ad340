"""Learning curves: mean returns over steps, as a run recorded them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.charts import Axis, Curve, Panel, draw
from policyserver.monitoring.store.reader import StoreReader
from policyserver.pipelines.demo.demo import DemoResult
from policyserver.pipelines.demo.setup import STORE_FILE

_POINTS = 80
_STEPS, _RETURNS = Axis("steps"), Axis("mean return of an episode")


def picture(curves: Mapping[str, Sequence[Curve]]) -> str:
    """Return the SVG of the curves under each title, side by side on common axes."""
    return draw([Panel(title, tuple(below), _STEPS, _RETURNS) for title, below in curves.items()])


def learning_curve(name: str, result: DemoResult, column: str) -> Curve:
    """Return a column of a run's returns over its steps, as recorded."""
    reader = StoreReader(result.folder / STORE_FILE)
    try:
        series = reader.returns(result.folder.name, _POINTS)
    finally:
        reader.close()
    episodes = np.cumsum(series["episodes"])
    steps = episodes / max(float(episodes[-1]), 1.0) * result.summary.steps if len(episodes) else episodes
    points = [(float(x), float(y)) for x, y in zip(steps, series[column], strict=True) if y is not None]
    return Curve(name, tuple(points))
