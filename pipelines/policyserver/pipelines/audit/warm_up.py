"""Does it matter how many bars there were before the first action? Not to an observer that says how many it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from policyserver.pipelines.audit.findings import CheckResult, PartAtFault
from policyserver.pipelines.audit.played import Played, play, prices_of
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.feed import EpisodeBars
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.market.running_statistics import ExponentialMean, Volatility
from policyserver.pipelines.market.schemes.observers import Observer
from policyserver.pipelines.prices import PriceSource

TOLERANCE = 0.02
"""How much a number may change, as a part of its standard deviation and of itself."""

_ROUNDING = 1e-6


def check_warm_up(config: PipelineConfig, episodes: range, concurrent: int) -> CheckResult:
    """Play episodes whose warm-up is twice as long, then the same bars without the first half of it, and compare what is observed.

    An observer is looked at if it says that it needs more than one bar. Of one that reads a running statistic that forgets over some bars,
    the part that the statistic still remembers of its beginning is allowed for.

    Raises:
        BaseException: What makes the pipeline fail.
    """
    extra = prices_of(config).episodes(episodes[:1])[0].bars.warmup_bars
    longer = replace(config, prices=replace(config.prices, warmup_bars=2 * extra))
    try:
        source = prices_of(longer)
    except ValueError as error:
        return CheckResult("warm-up", "nothing was looked at", notes=(f"no room for a longer warm-up: {error}",))
    longest = play(longer, source, episodes, concurrent=concurrent)
    shorter = play(config, _Trimmed(source, extra), episodes, concurrent=concurrent)
    rules, first, faults, unsure = Rules.of(config.rules), 0, [], []
    for part in rules.observers:
        size = int(np.prod(part.space(source.slots).shape))
        if part.warmup_bars() > 1:
            names = rules.numbers(source.slots)[first : first + size]
            faults += _compared(shorter, longest, episodes, first, names, _tolerance(part, extra))
        else:
            unsure.append(type(part).__name__)
        first += size
    notes = (f"not looked at, for they say nothing of how many bars they need: {', '.join(unsure)}",) if unsure else ()
    looked_at = f"{len(episodes)} episodes, {extra} more bars of warm-up, within {TOLERANCE:.0%} of a number and of its standard deviation"
    return CheckResult("warm-up", looked_at, tuple(faults), notes)


def _compared(shorter: Played, longest: Played, episodes: range, first: int, names: list[str], tolerance: float) -> list[PartAtFault]:
    """Return the numbers of an observer that differ by more than the tolerance."""
    places = slice(first, first + len(names))
    pairs = [(shorter.observations[number][:, places], longest.observations[number][:, places]) for number in episodes]
    lengths = [min(len(one), len(other)) for one, other in pairs]
    one, other = (np.concatenate([pair[of][:length] for pair, length in zip(pairs, lengths, strict=True)]).astype(float) for of in (0, 1))
    wrong = np.abs(one - other) > tolerance * (one.std(axis=0) + np.abs(one)) + _ROUNDING
    starts = np.cumsum([0, *lengths])
    found = []
    for place in np.flatnonzero(wrong.any(axis=0)).tolist():
        row = int(np.argmax(wrong[:, place]))
        at = int(np.searchsorted(starts, row, side="right")) - 1
        number, values = episodes[at], (float(one[row, place]), float(other[row, place]))
        bar, problem = int(shorter.bars_of(number)[row - starts[at]]), "changes with more bars before the first action"
        count = int(wrong[:, place].sum())
        found.append(PartAtFault.at(f"observed {names[place]}", problem, shorter.name(number), bar, values, count))
    return found


def _tolerance(part: Observer, warmup_bars: int) -> float:
    """Return how much a number may change: more where a shipped statistic, whose law is known, has not forgotten how it began."""
    memories = [statistic.bars for statistic in part.statistics() if isinstance(statistic, ExponentialMean | Volatility)]
    remembered = max(((1.0 - 1.0 / bars) ** max(warmup_bars - bars, 0) for bars in memories), default=0.0)
    return TOLERANCE + remembered


class _Trimmed:
    """The episodes of a source without some of their first bars."""

    def __init__(self, source: PriceSource, bars: int) -> None:
        self._source = source
        self._bars = bars
        self.symbols = source.symbols
        self.slots = source.slots
        self.is_recorded = source.is_recorded
        self.n_windows = source.n_windows
        self.columns = source.columns
        self.notes = source.notes
        self.annualisations = source.annualisations
        self.bar_intervals_ns = source.bar_intervals_ns

    def episodes(self, numbers: Sequence[int]) -> list[Episode]:
        """See `EpisodeSource`."""
        return [self._trimmed(episode) for episode in self._source.episodes(numbers)]

    def _trimmed(self, episode: Episode) -> Episode:
        whole, cut = episode.bars, self._bars
        bars = replace(whole, warmup_bars=whole.warmup_bars - cut, **_without_first(whole, len(whole.time_ns), cut))
        return replace(episode, bars=bars, first_row=episode.first_row + cut, **_without_first(episode, len(whole.time_ns), cut))


def _without_first(part: EpisodeBars | Episode, count: int, cut: int) -> dict[str, Any]:
    """Return the arrays of a dataclass that have a place for each of `count` bars, without the first places."""
    arrays = {each.name: getattr(part, each.name) for each in fields(part)}
    return {name: array[cut:] for name, array in arrays.items() if isinstance(array, np.ndarray) and len(array) == count}
