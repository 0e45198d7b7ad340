"""The results as a table for the terminal and as the committed report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = {
    "case": "case",
    "steps/s": "steps_per_s",
    "p50 ms": "p50_ms",
    "p99 ms": "p99_ms",
    "max ms": "max_ms",
    "server CPU us/action": "cpu_us_per_action",
    "x floor": "ratio_to_floor",
}

HEAD = """# Benchmarks

Written by `make bench` on {date}; every figure of a run is in `build/bench/CASE.json`.
Machine: {machine}. Server, learner and load generator share it; the server is started by command and each load runs in a process of its
own, twice on the same server: the second run counts. Latency is taken around the client's call, over every call of a window of
{window_s:g} s that begins after a warm-up of 2 s (in the `open_10000` cases: over all calls). `busy`: PPO trains on these very steps at
the same time; otherwise the episodes are started with `training_enabled=False`, and everything else is the same. Net of the `mlp` cases:
256-256 tanh, `Box(10)` to `Discrete(3)`.

"""

FLOOR = """
`memory_first_mb` is what the serving process held more after the first run than before it, `memory_again_mb` what the second added.
Floor, in the same run: a bare gRPC echo over one bidirectional stream for each caller, one message at a time, {floors}.
One message may carry the steps of many episodes, so a throughput may exceed the floor.
"""


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the results as aligned Markdown."""
    rows = [[*COLUMNS, "to reach"], *([*(_cell(result.get(key)) for key in COLUMNS.values()), _bars(result)] for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def markdown(results: Sequence[Mapping[str, Any]], floors: Mapping[int, float]) -> str:
    """Return the whole report."""
    echoes = ", ".join(f"{callers} caller{'s' * (callers > 1)} {rate:,.0f} messages/s" for callers, rate in floors.items())
    cases = "".join(f"- `{result['case']}`: {result['says']}.{_details(result)}\n" for result in results)
    return HEAD.format(**results[0]) + table(results) + "\n" + FLOOR.format(floors=echoes) + "\n" + cases


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _bars(result: Mapping[str, Any]) -> str:
    return "; ".join(f"{bar} {'met' if met else 'MISSED'}" for bar, met in result["bars"].items())


def _details(result: Mapping[str, Any]) -> str:
    shown = ("memory_first_mb", "memory_again_mb", "steps", "steps_trained", "steps_dropped", "staleness_mean", "episodes_finished")
    found = [f"{key} {_cell(result[key])}" for key in shown if key in result]
    return f" Found: {', '.join(found)}." if found else ""
