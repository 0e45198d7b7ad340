"""Does a split keep training and testing apart?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from policyserver.pipelines.audit.findings import CheckResult, PartAtFault
from policyserver.pipelines.audit.played import prices_of
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.market.split import Side
from policyserver.pipelines.pipeline import reach_of

_EPISODES = 512
"""Episodes of each part that are looked at: of a part's windows nearly all, or enough to come near its ends."""

_Extremes = dict[tuple[tuple[str, ...], str], Episode]
"""By what is traded and the fold, an episode."""


def check_split(config: PipelineConfig) -> CheckResult:
    """Look for bars that are played in training, and in testing seen at a decision, or of any symbol played, in the same fold.

    Raises:
        ValueError, OSError: The prices can't be made.
    """
    if config.prices.split is None:
        return CheckResult("split", "time is not cut")
    window = reach_of(Rules.of(config.rules)).window_bars
    trained = _extremes(_episodes(config, "train"), lambda episode: -episode.last_ns)
    tested = _extremes(_episodes(config, "test"), lambda episode: _first_seen_ns(episode, window))
    between = [_first_seen_ns(tested[part], window) - trained[part].last_ns for part in trained.keys() & tested.keys()]
    looked_at = f"the ends of {_EPISODES} episodes of training and of testing"
    if between:
        looked_at += f"; from the last bar of training to the first that testing sees: {max(0, min(between)) / 1e9:,.0f} s"
    return CheckResult("split", looked_at, tuple(_overlaps(trained, tested, window)))


def _overlaps(trained: _Extremes, tested: _Extremes, window: int) -> Iterator[PartAtFault]:
    for part in trained.keys() & tested.keys():
        late_s = (trained[part].last_ns - _first_seen_ns(tested[part], window)) / 1e9
        if late_s >= 0:
            problem = f"training plays bars up to {late_s:,.0f} s after the first that testing sees"
            yield PartAtFault("split", f"{problem}: {trained[part].id} and {tested[part].id}")
    for fold in {fold for _, fold in trained} & {fold for _, fold in tested}:
        last = max((episode for part, episode in trained.items() if part[1] == fold), key=lambda episode: episode.last_ns)
        first = min((episode for part, episode in tested.items() if part[1] == fold), key=_first_played_ns)
        if last.symbols != first.symbols and last.last_ns >= _first_played_ns(first):
            late_s = (last.last_ns - _first_played_ns(first)) / 1e9
            yield PartAtFault("split", f"training plays bars up to {late_s:,.0f} s after the first of testing: {last.id} and {first.id}")


def _extremes(episodes: Sequence[Episode], key: Callable[[Episode], int]) -> _Extremes:
    """Return of each symbol and fold the episode that has the least of something."""
    found: _Extremes = {}
    for episode in episodes:
        part = episode.symbols, episode.span.partition(" ")[2]
        found[part] = min(found.get(part, episode), episode, key=key)
    return found


def _episodes(config: PipelineConfig, side: Side) -> list[Episode]:
    split = config.prices.split
    assert split is not None
    return prices_of(replace(config, prices=replace(config.prices, split=replace(split, play=side)))).episodes(range(_EPISODES))


def _first_played_ns(episode: Episode) -> int:
    return int(episode.bars.time_ns[episode.bars.warmup_bars])


def _first_seen_ns(episode: Episode, window_bars: int) -> int:
    """Return the end of the first bar that the first decision of an episode sees."""
    return int(episode.bars.time_ns[max(episode.bars.warmup_bars - window_bars, 0)])
