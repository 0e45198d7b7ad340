"""How cost grows: the same load again and again, one quantity larger each time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.speed.cases import MLP
from benchmarks.speed.contenders import loaded
from benchmarks.speed.servers import Servers
from benchmarks.windows import Figures

SHOWN = ("steps_per_s", "p50_ms", "p99_ms", "cpu_us_per_action")
WINDOW_S = 5.0


@dataclass(frozen=True)
class Point:
    """One size of the quantity."""

    size: int
    """The quantity."""
    options: Mapping[str, Any]
    """Options of the load."""
    config: str = MLP
    """The server's configuration; points of one configuration share a server."""


@dataclass(frozen=True)
class Sweep:
    """One quantity that grows."""

    name: str
    """Name of the sweep, of its file and of its plot."""
    says: str
    """What is done, in one line for the report."""
    quantity: str
    """What grows: the label of the plot's x axis."""
    load: str
    """The load's name."""
    curves: Mapping[str, tuple[Point, ...]]
    """Points of each curve, by the curve's name."""


def _threads(training: bool) -> tuple[Point, ...]:
    sizes = (1, 4, 16, 64, 256)
    return tuple(Point(size, {"callers": size, "episode_steps": 200, "training": training}) for size in sizes)


def _vector(episodes: int) -> dict[str, Any]:
    return {"episodes": episodes, "episode_steps": 50, "training": False}


def _open(size: int) -> Point:
    rounds = max(4, 400_000 // size)
    options = {"episodes": size, "rounds": rounds, "rows_per_call": 100, "training": False, "known_actions": False}
    return Point(size, options)


def _floats(size: int) -> Point:
    space = f'[spaces.observation]\ntype = "Box"\nlow = -100.0\nhigh = 100.0\nshape = [{size}]\ndtype = "float32"\n'
    return Point(size, _vector(64), MLP.replace("max_open = 20000", "max_open = 1000") + space)


def _width(size: int) -> Point:
    return Point(size, _vector(256), MLP.replace("[256, 256]", f"[{size}, {size}]"))


def _runners(size: int) -> Point:
    return Point(size, _vector(1_024), f"{MLP}[algorithm.env_runners]\nnum_env_runners = {size}\n")


SWEEPS = (
    Sweep(
        "growth_clients",
        "1 to 256 blocking threads of one client, MLP 256-256",
        "threads",
        "threads",
        {"learner idle": _threads(False), "learner busy": _threads(True)},
    ),
    Sweep(
        "growth_open_episodes",
        "100 to 10,000 open episodes, stepped in random order, 100 with each call, MLP 256-256",
        "open episodes",
        "open_many",
        {"100 rows a call": tuple(map(_open, (100, 300, 1_000, 3_000, 10_000)))},
    ),
    Sweep(
        "growth_observation",
        "observations of 10 to 10,000 floats, 64 episodes with each call, MLP 256-256",
        "floats in an observation",
        "vector",
        {"64 rows a call": tuple(map(_floats, (10, 100, 1_000, 10_000)))},
    ),
    Sweep(
        "growth_rows",
        "1 to 4,096 episodes stepped with each call of one caller, MLP 256-256",
        "rows a call",
        "vector",
        {"one caller": tuple(Point(size, _vector(size)) for size in (1, 4, 16, 64, 256, 1_024, 4_096))},
    ),
    Sweep(
        "growth_width",
        "two hidden layers of 32 to 1,024 units, 256 episodes with each call",
        "units of each hidden layer",
        "vector",
        {"256 rows a call": tuple(map(_width, (32, 64, 128, 256, 512, 1_024)))},
    ),
    Sweep(
        "growth_runners",
        "1 to 4 serving runners on this one machine, 1,024 episodes spread over them and stepped with each call, MLP 256-256",
        "serving runners",
        "vector",
        {"1,024 rows a call": tuple(map(_runners, (1, 2, 3, 4)))},
    ),
)


def measure_sweep(sweep: Sweep, seconds: float | None) -> Figures:
    """Measure every point once, in windows of `seconds` or 5 s; curves take turns, size by size.

    Returns:
        `curves`: for each curve its sizes, and for each size what SHOWN names.
    """
    found: dict[str, dict[str, list[float]]] = {name: {key: [] for key in ("size", *SHOWN)} for name in sweep.curves}
    with Servers() as servers:
        running = ""
        for points in zip(*sweep.curves.values(), strict=True):
            for name, point in zip(sweep.curves, points, strict=True):
                if point.config != running:
                    servers.let_go()
                    running = point.config
                with loaded(sweep.load, point.options, point.config, "")(servers) as window:
                    figures = window(seconds or WINDOW_S)
                found[name]["size"].append(point.size)
                for key in SHOWN:
                    found[name][key].append(figures[key])
    return {"sweep": sweep.name, "says": sweep.says, "quantity": sweep.quantity, "window_s": seconds or WINDOW_S, "curves": found}
