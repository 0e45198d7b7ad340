"""The page's plots, each made of results that lie in build/bench; a plot whose result is not there is not made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from policyserver.pipelines.line_chart import Axis, Curve, Panel, draw, linear_axis, logarithmic_axis
from tests.benchmarks import results
from tests.benchmarks.case import Figures
from tests.benchmarks.growth import SWEEPS

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
    make: Callable[[Sequence[Figures]], str]
    """Takes those of the results that are there; returns the SVG."""


def write(folder: Path, pictures: Path) -> list[Plot]:
    """Draw what the results in `folder` allow into the folder `pictures`; return those plots."""
    made = []
    for plot in PLOTS:
        if found := results.read(folder, plot.needs):
            pictures.mkdir(parents=True, exist_ok=True)
            (pictures / f"{plot.name}.svg").write_text(plot.make(found), encoding="utf-8")
            made.append(plot)
    return made


def by_percentile(cases: Sequence[Figures]) -> str:
    """Draw latency by percentile, the percentiles spread so that each further nine takes as much room as the one before."""
    curves = [_curve(case["case"], [(1 / (1 - at / 100), ms) for at, ms in case["percentiles_ms"] if at < 100]) for case in cases]
    nines = Axis("of the calls are faster", 1.0, 10_000.0, (1.0, 10.0, 100.0, 1_000.0, 10_000.0), True, lambda x: f"{100 - 100 / x:g} %")
    return draw([Panel("Latency of a call", tuple(curves), nines, logarithmic_axis("ms", _ys(curves)))])


def growth(sweeps: Sequence[Figures]) -> str:
    """Draw a sweep: throughput, latencies and processor time over the quantity that grows."""
    (sweep,) = sweeps
    panels = []
    for key, title in SHOWN.items():
        curves = [_curve(name, zip(found["size"], found[key], strict=True)) for name, found in sweep["curves"].items()]
        sizes = [x for curve in curves for x, _ in curve.points]
        y = logarithmic_axis(title.rpartition(", ")[2], _ys(curves))
        panels.append(Panel(title, tuple(curves), logarithmic_axis(sweep["quantity"], sizes), y))
    return draw(panels)


def over_time(cases: Sequence[Figures]) -> str:
    """Draw each second's p99 and longest call: the whole window, and its first minute with the updates of the weights marked."""
    (case,) = cases
    timeline: Mapping[str, list[float]] = case["timeline"]
    end = max([1.0, *timeline["second"]])
    whole = [_curve(name, zip(timeline["second"], timeline[key], strict=True)) for name, key in (("p99", "p99_ms"), ("longest", "max_ms"))]
    first = [Curve(curve.name, tuple(point for point in curve.points if point[0] <= CLOSE_UP_S)) for curve in whole]
    ms = linear_axis("ms", _ys(whole))
    marks = tuple(second for second in timeline["updates_s"] if second <= min(CLOSE_UP_S, end))
    return draw(
        [
            Panel("The whole window", tuple(whole), linear_axis("s", [end]), ms),
            Panel("Its first minute; upright lines: new weights", tuple(first), linear_axis("s", [min(CLOSE_UP_S, end)]), ms, marks),
        ]
    )


def memory(cases: Sequence[Figures]) -> str:
    """Draw the serving process's memory over the episodes that are finished."""
    (case,) = cases
    curve = _curve("resident memory", [(finished, mb) for finished, mb in case["memory_by_episodes_mb"]])
    xs = [x for x, _ in curve.points]
    return draw([Panel("Memory of the serving process", (curve,), linear_axis("episodes finished", xs), linear_axis("MB", _ys([curve])))])


def _curve(name: str, points: Iterable[tuple[float, float]]) -> Curve:
    return Curve(name, tuple((float(x), float(y)) for x, y in points))


def _ys(curves: Iterable[Curve]) -> list[float]:
    return [y for curve in curves for _, y in curve.points]


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
