"""What `benchmarks.cluster.second_actor` measured, on one node and on two."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.folders import DOCS
from benchmarks.scaling.measured import FigureMissingError

RESULTS = {hosts: DOCS / "benchmarks" / f"second_actor_{name}.json" for hosts, name in ((1, "one_node"), (2, "two_nodes"))}
"""Results by the number of nodes that serve."""
BAR = 1.8
"""Times the throughput of one actor that two on a node each are to have: 0.9 x 2."""


@dataclass(frozen=True)
class Measurement:
    """Medians of the windows of one side."""

    actors: int
    actions_per_s: float
    p50_ms: float
    p99_ms: float
    server_us: float
    """Processor time of the actors for an action, microseconds."""
    client_us: float
    """The same of the clients."""
    server_us_of_windows: Sequence[float]


@dataclass(frozen=True)
class Load:
    """Callers, and what one actor and two took for them."""

    callers: int
    episodes_each: int
    one: Measurement
    two: Measurement

    @property
    def times_one(self) -> float:
        """What two actors do with a core each, in multiples of what one does: computed from processor time."""
        return 2 * self.one.server_us / self.two.server_us

    @property
    def busy(self) -> float:
        """Share of a core that one actor was busy with all of it."""
        return self.one.actions_per_s * self.one.server_us / 1e6


@dataclass(frozen=True)
class Result:
    """What was measured with both actors on one node, or on one each, and how."""

    date: str
    machine: str
    hosts: int
    pairs: int
    window_s: float
    settings: str
    """Of the server, as it ran."""
    loads: Sequence[Load]


def read_results() -> Mapping[int, Result]:
    """Read the results, by the number of nodes.

    Raises:
        FigureMissingError: One is not there.
    """
    found = {}
    for hosts, file in RESULTS.items():
        if not file.exists():
            raise FigureMissingError(f"{file}: expected results; run `python -m benchmarks.cluster.second_actor --hosts {hosts}` as root")
        content = json.loads(file.read_text(encoding="utf-8"))
        loads = [
            Load(load["callers"], load["episodes_each"], Measurement(**load["one"]), Measurement(**load["two"]))
            for load in content.pop("loads")
        ]
        found[hosts] = Result(**content, loads=loads)
    return found


def client_us(results: Mapping[int, Result]) -> float:
    """Return the processor time of a client for an action, of callers with many episodes at an actor on each of two nodes."""
    return results[2].loads[0].two.client_us


def rendered(results: Mapping[int, Result]) -> str:
    """Return the section of the page."""
    rows = []
    for hosts, result in sorted(results.items()):
        for load in result.loads:
            for side in (load.one, load.two):
                nodes = min(hosts, side.actors)
                figures = f"{side.actions_per_s:,.0f} | {side.p50_ms:.1f} | {side.p99_ms:.1f} | {side.server_us:.2f} | {side.client_us:.2f}"
                rows.append(f"| {load.callers} with {load.episodes_each:,} | {side.actors} | {nodes} | {figures} |")
    apart = results[2]
    filling, *others = apart.loads
    says = [
        f"- {_computed(filling)}; {BAR:g}, 0.9 x 2, is asked: {'met' if filling.times_one >= BAR else 'MISSED'}.",
        *(f"- {_computed(load)}. These keep one actor {load.busy:.0%} busy, which needs no second one." for load in others),
        "",
        "A pass has a cost of its own, whatever its rows. Few episodes that are divided among actors make more, smaller passes.",
    ]
    together = " and ".join(f"{load.times_one:.2f}" for load in results[1].loads)
    lines = [
        "| callers and episodes of each | actors | nodes | actions/s | p50 ms | p99 ms | actors' CPU us/action | clients' CPU us/action |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        "What a second actor on a node of its own brings, computed from the processor time that the actors take for an action:",
        "",
        *says,
        "",
        f"With both actors on one node the same comes to {together}. Written on {apart.date} (two nodes) and {results[1].date} (one).",
        f"Machine: {apart.machine}. {apart.pairs} pairs of windows of {apart.window_s:g} s by turns, medians.",
        "The settings of the server, as it ran:",
        "",
        "```text",
        apart.settings,
        "```",
    ]
    return "\n".join(lines)


def _computed(load: Load) -> str:
    callers = f"{load.callers} callers with {load.episodes_each:,} {'episodes' if load.episodes_each > 1 else 'episode'} each"
    return f"{callers}: 2 x {load.one.server_us:.2f} / {load.two.server_us:.2f} = **{load.times_one:.2f}** times one actor's"
