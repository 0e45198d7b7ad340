"""Measuring contenders in turns, A B A B, so that a machine that drifts favours none of them.

What comes of it for each case: the medians of its windows, and the ratio of each of its windows to its opponent's window of the same round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any

from benchmarks.speed import echo
from benchmarks.speed.case import LATENCIES, THROUGHPUT, Case
from benchmarks.speed.peers.table import PEERS, MissingError
from benchmarks.speed.servers import Servers
from benchmarks.windows import Figures, Window

FLOOR_WINDOW_S = 3.0
LARGEST_COUNTS = {
    "max_ms",
    "episodes_leaked",
    "reward_sum_off_by",
    "actions_mixed_up",
    "returns_mixed_up",
    "bytes_per_episode",
    "growth_mb_per_100000",
}
SMALLEST_COUNTS = {"episodes_open"}


def groups(cases: Sequence[Case]) -> list[list[Case]]:
    """Return the cases in groups that are measured in turns: a case, and those that are held against it."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        first = case.beside.case if case.beside and case.beside.case in found else case.name
        found.setdefault(first, []).append(case)
    return list(found.values())


def alternate(windows: Mapping[str, Window], rounds: Mapping[str, int], seconds: Mapping[str, float]) -> dict[str, list[Figures]]:
    """Measure each of them for its seconds, one after the other, and that over and over, until each has had its rounds."""
    found: dict[str, list[Figures]] = {name: [] for name in windows}
    for number in range(max(map(rounds.__getitem__, windows), default=0)):
        for name, window in windows.items():
            if number < rounds[name]:
                found[name].append(window(seconds[name]))
    return found


def measure_group(cases: Sequence[Case], servers: Servers, seconds: float | None, rounds: int | None) -> list[Figures]:
    """Measure a group of cases in turns with their peers and floors.

    Args:
        cases: The group.
        servers: Where their servers come from.
        seconds: Length of each window; None takes each case's own.
        rounds: Windows of each contender; None takes each case's own, and for what it is held against as many.

    Returns:
        The result of each case, without the description of the machine.
    """
    missing: dict[str, str] = {}
    windows: dict[str, Window] = {}

    def prepare(name: str, context: Callable[[], AbstractContextManager[Window]]) -> None:
        try:
            windows[name] = stack.enter_context(context())
        except MissingError as error:
            missing[name] = str(error)

    with ExitStack() as stack:
        for case in cases:
            prepare(case.name, partial(case.contender, servers))
        lengths = {case.name: seconds or case.window_s for case in cases}
        for case in (case for case in cases if case.name in windows):
            if case.floor and str(case.floor) not in windows:
                windows[str(case.floor)] = stack.enter_context(echo.running(case.floor))
            if case.peer and case.peer not in windows:
                prepare(case.peer, PEERS[case.peer].running)
        lengths = dict.fromkeys(windows, seconds or cases[0].window_s) | lengths
        lengths |= {str(case.floor): min(lengths[case.name], FLOOR_WINDOW_S) for case in cases if case.floor}
        found = alternate(windows, dict.fromkeys(windows, rounds) if rounds else _rounds(cases, windows), lengths)
    return [result_of(case, found, lengths[case.name], missing) for case in cases]


def _rounds(cases: Sequence[Case], windows: Iterable[str]) -> dict[str, int]:
    """Return how many windows each contender has: as many as the case that wants most of it."""
    found = dict.fromkeys(windows, 0)
    for case in cases:
        for name in (case.name, str(case.floor), case.peer, case.beside.case if case.beside else None):
            if name in found:
                found[name] = max(found[name], case.rounds)
    return found


def result_of(case: Case, found: Mapping[str, Sequence[Figures]], seconds: float, missing: Mapping[str, str]) -> Figures:
    """Return one case's figures, held against its floor, its peer and the case beside it, and judged by its bars; or why there are none."""
    result: Figures = {"case": case.name, "says": case.says, "window_s": seconds}
    if case.name in missing:
        return result | {"missing": missing[case.name], "bars": {str(bar): None for bar in case.bars}}
    ours = found[case.name]
    result |= {"rounds": len(ours), **typical(ours)}
    pairs: dict[str, list[float]] = {}
    factor = 1.0
    if case.floor:
        floor = found[str(case.floor)]
        result |= {"floor": str(case.floor), "floor_steps_per_s": typical(floor)[THROUGHPUT]}
        pairs["ratio_to_floor"] = _ratios(ours, floor, THROUGHPUT)
        if case.floor.steps_per_s_where_bars_were_set:
            factor = min(1.0, result["floor_steps_per_s"] / case.floor.steps_per_s_where_bars_were_set)
    if case.peer and case.peer in missing:
        result |= {"peer": case.peer, "peer_missing": missing[case.peer]}
    elif case.peer:
        result |= {"peer": case.peer, "peer_figures": typical(found[case.peer])}
        pairs["ratio_to_peer"] = _ratios(ours, found[case.peer], THROUGHPUT)
    if case.beside and case.beside.case in found:
        other = found[case.beside.case]
        pairs[f"throughput_of_{case.beside.called}"] = _ratios(ours, other, THROUGHPUT)
        pairs |= {f"{key.removesuffix('_ms')}_of_{case.beside.called}": _ratios(ours, other, key) for key in LATENCIES}
    result |= {key: statistics.median(ratios) for key, ratios in pairs.items()}
    bars = [bar.on_slower_machine(factor) for bar in case.bars]
    judged = {"bars": {str(bar): bar.met(result) for bar in bars}, "bars_are_for_speed": factor}
    return result | judged | {"pairs": pairs, "windows": list(ours)}


def typical(windows: Sequence[Figures]) -> Figures:
    """Return the medians over the windows; of what must not happen even once, and of the longest call, the worst."""
    found = {key: _typical(key, [window[key] for window in windows]) for key in windows[0]}
    if found.pop("memory_before_mb", None) is not None:
        found.pop("memory_mb")
        held_mb = [window["memory_mb"] for window in windows]  # right after the load: what is given back meanwhile is taken again
        found["memory_first_mb"] = held_mb[0] - windows[0]["memory_before_mb"]
        if len(windows) > 1:
            found["memory_again_mb"] = (held_mb[-1] - held_mb[0]) / (len(windows) - 1)
    return found


def _typical(key: str, values: Sequence[Any]) -> Any:
    if key == "percentiles_ms":
        return [[at[0][0], statistics.median(value for _, value in at)] for at in zip(*values, strict=True)]
    numbers = [value for value in values if isinstance(value, int | float)]  # a short window may know no return yet
    if not numbers:
        return values[-1]
    if key in LARGEST_COUNTS:
        return max(numbers, key=abs)
    return min(numbers) if key in SMALLEST_COUNTS else statistics.median(numbers)


def _ratios(ours: Iterable[Figures], theirs: Iterable[Figures], key: str) -> list[float]:
    """Return our figure by theirs, round by round; there may be more rounds of theirs, for another case."""
    return [mine[key] / other[key] for mine, other in zip(ours, theirs, strict=False)]
