"""The page's plots, each made of results that lie in build/bench; a plot whose result is not there is not made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.charts import Axis, Curve, Panel, draw
from benchmarks.speed import results
from benchmarks.speed.growth import SWEEPS
from benchmarks.windows import Figures

PERCENTILE_CASES = ("threads_1_mlp", "threads_64_mlp", "threads_64_mlp_busy", "threads_256_mlp", "vector_256_mlp")
TIMELINE_CASE, MEMORY_CASE = "longest_call_64_mlp", "memory_finished"
CLOSE_UP_S = 60.0
SHOWN = {"steps_per_s": "steps/s", "p50_ms": "p50, ms", "p99_ms": "p99, ms", "cpu_us_per_action": "server CPU, µs/action"}


@dataclass(frozen=True)
class Plot:
    """One picture of the page."""

    name: str
    """Name of its file."""
    title: str
    """Its heading."""
    says: str
    """What it shows, in a sentence or two."""
    needs: tuple[str, ...]
    """Results that it is made of; one of them is enough."""
    panels: Callable[[Sequence[Figures]], list[Panel]]
    """Makes its panels from those of the results that are there."""


def write(folder: Path, pictures: Path) -> list[Plot]:
    """Draw what the results in `folder` allow into the folder `pictures`; return those plots."""
    made = []
    for plot in PLOTS:
        if found := results.read(folder, plot.needs):
            pictures.mkdir(parents=True, exist_ok=True)
            (pictures / f"{plot.name}.svg").write_text(draw(plot.panels(found)), encoding="utf-8")
            made.append(plot)
    return made


def by_percentile(cases: Sequence[Figures]) -> list[Panel]:
    """Show latency by percentile, the percentiles spread so that each further nine takes as much room as the one before."""
    curves = [_curve(case["case"], [(1 / (1 - at / 100), ms) for at, ms in case["percentiles_ms"] if at < 100]) for case in cases]
    nines = Axis("of the calls are faster", is_logarithmic=True, limits=(1.0, 10_000.0), text=lambda x: f"{100 - 100 / x:g} %")
    return [Panel("Latency of a call", tuple(curves), nines, Axis("ms", is_logarithmic=True))]


def growth(sweeps: Sequence[Figures]) -> list[Panel]:
    """Show a sweep: throughput, latencies and processor time over the quantity that grows."""
    (sweep,) = sweeps
    panels = []
    for key, title in SHOWN.items():
        curves = [_curve(name, zip(found["size"], found[key], strict=True)) for name, found in sweep["curves"].items()]
        y = Axis(title.rpartition(", ")[2], is_logarithmic=True)
        panels.append(Panel(title, tuple(curves), Axis(sweep["quantity"], is_logarithmic=True), y))
    return panels


def over_time(cases: Sequence[Figures]) -> list[Panel]:
    """Show each second's p99 and longest call: the whole window, and its first minute with the updates of the weights marked."""
    (case,) = cases
    timeline: Mapping[str, list[float]] = case["timeline"]
    whole = [_curve(name, zip(timeline["second"], timeline[key], strict=True)) for name, key in (("p99", "p99_ms"), ("longest", "max_ms"))]
    first = [Curve(curve.name, tuple(point for point in curve.points if point[0] <= CLOSE_UP_S)) for curve in whole]
    close_up_s = min(CLOSE_UP_S, max([1.0, *timeline["second"]]))
    marks = tuple(second for second in timeline["updates_s"] if second <= close_up_s)
    return [
        Panel("The whole window", tuple(whole), Axis("s"), Axis("ms")),
        Panel("Its first minute; upright lines: new weights", tuple(first), Axis("s", limits=(0.0, close_up_s)), Axis("ms"), marks),
    ]


def memory(cases: Sequence[Figures]) -> list[Panel]:
    """Show the serving process's memory over the episodes that are finished."""
    (case,) = cases
    curve = _curve("resident memory", [(finished, mb) for finished, mb in case["memory_by_episodes_mb"]])
    return [Panel("Memory of the serving process", (curve,), Axis("episodes finished"), Axis("MB"))]


def _curve(name: str, points: Iterable[tuple[float, float]]) -> Curve:
    return Curve(name, tuple((float(x), float(y)) for x, y in points))


_GROWTH_TITLES = {
    "growth_clients": "Throughput by number of clients",
    "growth_open_episodes": "Cost by open episodes",
    "growth_observation": "Cost by size of the observation",
    "growth_rows": "Cost by rows per call",
    "growth_width": "Cost by width of the net",
    "growth_runners": "Throughput by number of serving runners",
}

PLOTS = (
    Plot(
        "latency_by_percentile",
        "Latency by percentile",
        "All calls of a window, the medians of its rounds.",
        PERCENTILE_CASES,
        by_percentile,
    ),
    Plot(
        "p99_over_time",
        "Latency over time, across the learner's updates",
        "64 blocking threads while PPO trains on their steps.",
        (TIMELINE_CASE,),
        over_time,
    ),
    *(Plot(sweep.name, _GROWTH_TITLES[sweep.name], f"{sweep.says[0].upper()}{sweep.says[1:]}.", (sweep.name,), growth) for sweep in SWEEPS),
    Plot("memory_finished", "Memory over finished episodes", "Read each time another 100,000 were over.", (MEMORY_CASE,), memory),
)
