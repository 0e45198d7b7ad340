"""Does anything up to a bar depend on what comes after it? The bars after it are made others, and the run is played again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from policyserver.pipelines.audit.early_fills import early_fills
from policyserver.pipelines.audit.findings import CheckResult, PartAtFault
from policyserver.pipelines.audit.played import Played, Recorded, play, prices_of
from policyserver.pipelines.audit.price_changes import OtherFuture
from policyserver.pipelines.audit.split_parts import check_split
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.history import FIELDS
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.played_block import shares_of

_PLAYED_AFTER = 2
"""Bars after the cut that are played, to see what becomes of the orders there."""

_UNSTEADY = "differs between two runs on the same bars, so that it can't be told whether it changes with later ones"

_ROUNDING = 1e-9
"""Relative distance by which a fill's price may lie outside its bar."""


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """Where the prices begin to be others."""

    change: OtherFuture
    known: Mapping[int, int]
    """By number of an episode, how many of its bars stay, warm-up included."""


class _Faults:
    """Gathers the first place and the number of places of each part at fault."""

    def __init__(self) -> None:
        self._found: dict[str, PartAtFault] = {}

    def add(self, fault: PartAtFault) -> None:
        known = self._found.get(fault.part)
        self._found[fault.part] = replace(known, places=known.places + fault.places) if known else fault

    def result(self) -> tuple[PartAtFault, ...]:
        return tuple(self._found.values())


def check_changed_future(
    config: PipelineConfig, episodes: range, concurrent: int, cuts: int, *, looks_at_split: bool = True
) -> CheckResult:
    """Play episodes, then again for each cut with other bars after it, and compare everything up to it bit for bit.

    The bars of simulated episodes are cut in the order in which their block is played, each at the bar that it has reached then; in every
    other cut it is the random numbers of the process that change. Recorded files are cut at a time, all of them, before anything is made
    of their rows. The first cut is at the bar of the first action, where a warm-up shows that is one bar too long. What differs between two
    runs on the same bars, too, is told so.

    Args:
        config: Settings.
        episodes: Their numbers.
        concurrent: Episodes at a time.
        cuts: How often.
        looks_at_split: Whether what `check_split` finds is among the faults.

    Raises:
        BaseException: What makes the pipeline fail.
    """
    source = prices_of(config)
    honest = play(config, source, episodes, concurrent=concurrent)
    faults, edges, compared, was_changed = _Faults(), 0, 0, False
    notes: list[str] = []
    _compare_fills(honest, faults)
    for early in early_fills(config, source, episodes):
        faults.add(early)
    names = Rules.of(config.rules).numbers(source.slots)
    for number in range(cuts):
        make = _recorded_cut if source.is_recorded else _simulated_cut
        cut = make(honest, episodes, shares_of(concurrent, config.nodes.blocks), number, cuts, config.episodes_seed)
        try:
            changed_source = prices_of(config, cut.change)
        except ValueError as error:  # a file may be refused that ends otherwise
            notes.append(f"cut {number + 1} was left out, for the prices are refused then: {error}")
            continue
        changed = play(config, changed_source, episodes, lambda episode, cut=cut: _wanted(episode, cut), concurrent)  # type: ignore[misc]
        edges += sum(0 < cut.known.get(each, 0) < len(honest.episodes[each].bars.time_ns) for each in episodes)
        compared += _compare(honest, changed, cut, episodes, names, faults)
        _compare_fills(changed, faults)
        was_changed |= any(
            not np.array_equal(changed.episodes[each].bars.bars, honest.episodes[each].bars.bars)
            for each in changed.episodes.keys() & honest.episodes.keys()
        )
    if found := faults.result():
        again = play(config, source, episodes, concurrent=concurrent)
        faults = _Faults()
        _compare(honest, again, _Cut(OtherFuture(0, "bars", {}, 0), _whole(honest, episodes)), episodes, names, faults)
        unsteady = {fault.part for fault in faults.result()}
        faults = _Faults()
        for fault in found:
            faults.add(replace(fault, problem=_UNSTEADY) if fault.part in unsteady else fault)
    if looks_at_split:
        for fault in check_split(config).faults:
            faults.add(fault)
    if not was_changed:
        faults.add(PartAtFault("prices", "other bars in files or processes change no bar of any episode, so that nothing can be told"))
    looked_at = f"{len(episodes)} episodes, {cuts} cuts through {edges} of them, {compared:,} bars of episodes compared"
    return CheckResult("changed future", looked_at, faults.result(), tuple(notes))


def _whole(honest: Played, episodes: range) -> dict[int, int]:
    return {number: len(honest.episodes[number].bars.time_ns) for number in episodes}


# Where it is cut ---------------------------------------------------------------------------------------------------------------------


def _simulated_cut(honest: Played, episodes: range, shares: Sequence[int], number: int, cuts: int, seed: int) -> _Cut:
    """Cut each block after the same part of its turns."""
    rng = np.random.default_rng((seed, number))
    through = "draws" if number % 2 else "bars"
    first, known, bounds = episodes.start, {}, np.cumsum([0, *shares])
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        own = {each: course for each, course in honest.courses.items() if begin <= (each - first) % sum(shares) < end}
        longest = max((course.began + course.bars for each, course in own.items() if each in episodes), default=1)
        turn = min(int((number // 2 + rng.random() * (number > 0)) / max(1, (cuts + 1) // 2) * longest), longest - 1)
        for each, course in own.items():
            if course.began <= turn:
                known[each] = honest.episodes[each].bars.warmup_bars + min(turn - course.began, course.bars)
    return _Cut(OtherFuture(int(rng.integers(2**62)), through, known, 0), known)  # type: ignore[arg-type]


def _recorded_cut(honest: Played, episodes: range, shares: Sequence[int], number: int, cuts: int, seed: int) -> _Cut:
    """Cut all files at the time of a bar of an episode: of one after the other."""
    rng = np.random.default_rng((seed, number))
    chosen = honest.episodes[episodes[number * len(episodes) // cuts if cuts <= len(episodes) else number % len(episodes)]].bars
    place = int(rng.integers(chosen.warmup_bars - 1, len(chosen.time_ns) - 1)) if number else chosen.warmup_bars - 1
    last_ns = int(chosen.time_ns[place])
    known = {each: int(np.searchsorted(honest.episodes[each].bars.time_ns, last_ns, side="right")) for each in episodes}
    return _Cut(OtherFuture(int(rng.integers(2**62)), "bars", {}, last_ns), known)


def _wanted(episode: Episode, cut: _Cut) -> int:
    known = cut.known.get(episode.number, 0)
    return 1 if known < episode.bars.warmup_bars else known - episode.bars.warmup_bars + 1 + _PLAYED_AFTER


# What is compared --------------------------------------------------------------------------------------------------------------------


def _compare(honest: Played, changed: Played, cut: _Cut, episodes: range, names: list[str], faults: _Faults) -> int:
    """Compare all that was known up to the cut; return how many bars that is."""
    compared = 0
    for number in episodes:
        known, bars = cut.known.get(number, 0), honest.episodes[number].bars
        if known == 0:
            continue
        for fault in _of_prices(honest.episodes[number], changed.episodes.get(number), known):
            faults.add(fault)
        count = known - bars.warmup_bars + 1
        if count < 1:
            continue
        compared += count
        for fault in _of_observations(honest, changed, number, count, names):
            faults.add(fault)
        for fault in _of_records(honest, changed, number, count):
            faults.add(fault)
    return compared


def _of_prices(honest: Episode, changed: Episode | None, known: int) -> Iterator[PartAtFault]:
    if changed is None:
        return
    ours, theirs = honest.bars, changed.bars
    known = min(known, len(ours.time_ns))
    if honest.symbols != changed.symbols or not np.array_equal(ours.time_ns[:known], theirs.time_ns[:known]):
        starts = (float(each.time_ns[0]) for each in (ours, theirs))
        yield PartAtFault.at("episode", "another one is played when later bars change; first bar, ns", honest.id, 0, starts)
        return
    for place in range(ours.bars.shape[2]):
        field = FIELDS[place] if place < len(FIELDS) else f"further column {place - len(FIELDS) + 1}"
        differs = ours.bars[:known, :, place] != theirs.bars[:known, :, place]
        if differs.any():
            row, symbol = (int(each[0]) for each in np.nonzero(differs))
            values = (float(each.bars[row, symbol, place]) for each in (ours, theirs))
            bar = row - ours.warmup_bars + 1
            yield PartAtFault.at(f"price: {field}", "changes with later bars", honest.id, bar, values, int(differs.sum()))


def _of_observations(honest: Played, changed: Played, number: int, count: int, names: list[str]) -> Iterator[PartAtFault]:
    at = honest.bars_of(number)
    known = min(int(np.searchsorted(at, count)), len(changed.observations[number]))  # another end is seen in the records
    ours, theirs = honest.observations[number][:known], changed.observations[number][:known]
    differs = ours.view(np.uint32) != theirs.view(np.uint32)
    for place in np.flatnonzero(differs.any(axis=0)).tolist():
        first = int(np.argmax(differs[:, place]))
        values = (float(each[first, place]) for each in (ours, theirs))
        places = int(differs[:, place].sum())
        yield PartAtFault.at(f"observed {names[place]}", "changes with later bars", honest.name(number), int(at[first]), values, places)


def _of_records(honest: Played, changed: Played, number: int, count: int) -> Iterator[PartAtFault]:
    empty = Recorded(np.empty(0, dtype=np.int64), np.empty(0))
    ours, theirs = honest.recorded.get(number, {}), changed.recorded.get(number, {})
    for name in sorted(ours.keys() | theirs.keys()):
        one, other = (_until(each.get(name, empty), count) for each in (ours, theirs))
        shorter = min(len(one.bar), len(other.bar))
        if name.startswith("step.") and len(one.bar) != len(other.bar):
            lengths = (float(len(one.bar)), float(len(other.bar)))
            yield PartAtFault.at("end", "of an episode changes with later bars; actions", honest.name(number), shorter, lengths)
            return
        pairs = (one.bar[:shorter] != other.bar[:shorter]) | (
            one.values[:shorter].view(np.uint64) != other.values[:shorter].view(np.uint64)
        )
        differing = int(pairs.sum()) + abs(len(one.bar) - len(other.bar))
        if differing:
            place = int(np.argmax(pairs)) if pairs.any() else shorter
            values = [float(each.values[place]) if place < len(each.bar) else np.nan for each in (one, other)]
            bar = int((one if place < len(one.bar) else other).bar[place])
            yield PartAtFault.at(_what(name), "changes with later bars", honest.name(number), bar, values, differing)


def _until(recorded: Recorded, count: int) -> Recorded:
    known = recorded.bar < count
    return Recorded(recorded.bar[known], recorded.values[known])


def _compare_fills(played: Played, faults: _Faults) -> None:
    """Look for fills at prices that their bars don't have: of a bar before, when the next opens elsewhere."""
    for number, recorded in played.recorded.items():
        fills = recorded.get("order.reference_price")
        if fills is None:
            continue
        episode = played.episodes[number].bars
        rows = fills.bar + episode.warmup_bars - 1
        lows, highs = episode.bars[rows, :, 2], episode.bars[rows, :, 1]
        inside = (fills.values[:, None] >= lows * (1.0 - _ROUNDING)) & (fills.values[:, None] <= highs * (1.0 + _ROUNDING))
        wrong = np.flatnonzero(~inside.any(axis=1))
        if len(wrong):
            at = int(wrong[0])
            nearest = np.clip(fills.values[at], lows[at], highs[at])
            near = float(nearest[np.argmin(np.abs(nearest - fills.values[at]))])
            problem = "at a price that the bar does not have; the nearest that it has, and the fill's,"
            places = len(wrong)
            faults.add(PartAtFault.at("fill", problem, played.name(number), int(fills.bar[at]), (near, float(fills.values[at])), places))


def _what(name: str) -> str:
    kind, _, column = name.partition(".")
    if kind == "order":
        return f"filled: {column}"
    if column.startswith("prediction"):
        return f"forecast: {column}"
    return f"rewarded: {column}" if column == "reward" else f"account: {column}"
