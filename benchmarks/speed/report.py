"""Results as text: the table of the terminal and the page, and what stands below it."""

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
    "x peer": "ratio_to_peer",
}
VERDICTS = {True: "met", False: "MISSED", None: "not measured"}
FOUND = (
    "memory_first_mb",
    "memory_again_mb",
    "bytes_per_episode",
    "bytes_per_step",
    "growth_mb_per_100000",
    "steps",
    "steps_trained",
    "steps_dropped",
    "staleness_mean",
    "episodes_finished",
    "updates",
    "cpu_us_per_step",
)


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the results as aligned Markdown."""
    return aligned([*COLUMNS, "to reach"], [[*(_cell(result.get(key)) for key in COLUMNS.values()), _bars(result)] for result in results])


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as an aligned table in Markdown."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def details(result: Mapping[str, Any], machine: str = "") -> str:
    """Return a line about one result: what was done, its ratios round by round, what else was found; or why it is not measured.

    Args:
        result: The result.
        machine: The page's machine; another one of the result is said.
    """
    if "missing" in result:
        return f"- `{result['case']}`: {result['says']}. Not measured: {result['missing']}."
    text = f"- `{result['case']}`: {result['says']}; {result['rounds']} x {result['window_s']:g} s."
    for key, title in (("net", "Net"), ("device", "Device"), ("machine", "Machine")):
        if result.get(key) and result[key] != machine:
            text += f" {title}: {result[key]}."
    for name, ratios in result["pairs"].items():
        text += f" {name}: {_spread(ratios)}."
    if result["bars_are_for_speed"] < 1:
        text += f" The floor is {result['bars_are_for_speed']:.2f} of that of the machine the bars were set on; so are the bars of speed."
    found = [f"{key} {_cell(result[key])}" for key in FOUND if key in result]
    return text + (f" Found: {', '.join(found)}." if found else "")


def opponent(result: Mapping[str, Any], says: str) -> str:
    """Return a line about a result's peer: its figures, or why there are none."""
    if "peer_missing" in result:
        return f"- `{result['peer']}`, beside `{result['case']}`: {says}. Not measured: {result['peer_missing']}"
    figures = ", ".join(
        f"{name} {_cell(result['peer_figures'].get(key))}" for name, key in COLUMNS.items() if key in result["peer_figures"]
    )
    return f"- `{result['peer']}`, beside `{result['case']}`: {says}. {figures}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _bars(result: Mapping[str, Any]) -> str:
    return "; ".join(f"{bar} {VERDICTS[met]}" for bar, met in result["bars"].items())


def _spread(ratios: Sequence[float]) -> str:
    return ", ".join(f"{ratio:.3g}" for ratio in ratios)
