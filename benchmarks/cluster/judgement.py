"""What the ledger of the clients and the record of the server say together, and which bars that meets."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from benchmarks.cluster.ledger import UNKNOWN, Acknowledged, Ledger, Places, Times
from benchmarks.cluster.record import Record, Report, Update

ACTS_AGAIN_S = 15.0
PAUSE_S = 6.0
LAST_REPORT_S = 2.0
"""A process is asked each second, and has a second to answer: what it acknowledged in this time may be missing in its last report."""
SEEN_LATE_S = 1.0
"""How long it may take until it is seen that Ray has ended a process."""
_WHERE = ("handed_off", "dropped", "cut_off", "paused", "untrained", "waiting")
"""Where the steps of a process go, by its counters, as far as it has these."""
_AFTER_S = 30.0
"""How long after an event a pause of learning is its own."""


@dataclass(frozen=True)
class Finding:
    """A figure and what is asked of it."""

    what: str
    figure: str
    bar: str = ""
    is_met: bool = True


@dataclass(frozen=True)
class Event:
    """What happened to a host, and when."""

    name: str
    time_s: float
    done_s: float = 0.0
    """When it was done; until then messages may have come through."""


@dataclass(frozen=True)
class Went:
    """A serving process that was killed, or cut off, or neither."""

    boot: str
    how: str = ""
    """"killed" or "cut off"; empty: it served all along."""
    time_s: float = 0.0
    done_s: float = 0.0
    """When that was done."""
    ended_s: float | None = None
    """When Ray ended a process that was cut off."""

    @classmethod
    def at(cls, event: Event) -> Went:
        """Return how a process went to whose host an event happened."""
        return cls("", event.name, event.time_s, event.done_s)


class Pause(NamedTuple):
    """From the end of one update to the beginning of the next: the time in which nothing is learned."""

    seconds: float
    learn_s: float
    """How long the later update took."""


def longest_gap_s(times: Times, places: Places, count: int, event_s: float, until_s: float, end_s: float) -> tuple[float, int]:
    """Return for how long an episode's place waited most for its next action after an event, and which place.

    The wait begins at the event, or at one of the place's actions from there until another time; it ends with the place's next action,
    whenever that is. A place that does not act any more waits until the end.
    """
    order = np.lexsort((times, places))
    times, places = times[order], places[order]
    is_last = np.append(places[1:] != places[:-1], True) if len(places) else np.zeros(0, np.bool_)
    following = np.where(is_last, end_s, np.append(times[1:], end_s)[: len(times)])
    waits = np.where((following > event_s) & (times < until_s), following - np.maximum(times, event_s), 0.0)
    silent = np.setdiff1d(np.arange(count), places)
    if len(silent):
        return end_s - event_s, int(silent[0])
    longest = int(np.argmax(waits))
    return float(waits[longest]), int(places[longest])


def longest_pause(updates: Sequence[Update], since_s: float, until_s: float) -> Pause:
    """Return the longest time between two updates, of those that overlap a span; the newest one is followed by its end."""
    noted = [*(update for update in updates if update.time_s < until_s), Update(until_s, 0.0)]
    pairs = itertools.pairwise(noted)
    pauses = [Pause(after.time_s - before.time_s - after.learn_s, after.learn_s) for before, after in pairs if after.time_s > since_s]
    return max(pauses, default=Pause(until_s - since_s, 0.0))


def of_acting(ledger: Ledger, places: int, events: Sequence[Event], end_s: float) -> list[Finding]:
    """Judge whether each episode's place acts again after each event, and whether actions were mixed up."""
    times, acted = ledger.acted()
    found = [Finding("actions mixed up", f"{ledger.mixed_up:,} of {len(times):,}", "0", ledger.mixed_up == 0)]
    for event, until_s in _spans(events, end_s, ACTS_AGAIN_S):
        gap_s, place = longest_gap_s(times, acted, places, event.time_s, until_s, end_s)
        says = f"{event.name}: the longest that one of {places:,} clients waited for its next action"
        found.append(Finding(says, f"{gap_s:.1f} s (place {place})", f"at most {ACTS_AGAIN_S:g} s", gap_s <= ACTS_AGAIN_S))
    errors = ", ".join(f"{count:,} {name}" for name, count in sorted(ledger.errors.items()))
    return [*found, Finding("errors that clients got", errors or "none")]


def of_learning(record: Record, events: Sequence[Event], begin_s: float, end_s: float) -> list[Finding]:
    """Judge the pauses between updates."""
    usual = np.diff([update.time_s for update in record.updates if begin_s <= update.time_s < events[0].time_s])
    says = f"median {np.median(usual):.2f} s, longest {usual.max():.2f} s" if len(usual) else "too few updates"
    found = [Finding("from update to update before the first event", says)]
    for event, until_s in _spans(events, end_s, _AFTER_S):
        pause = longest_pause(record.updates, event.time_s, until_s)
        says = f"{pause.seconds:.1f} s, before an update of {pause.learn_s:.1f} s"
        found.append(Finding(f"{event.name}: longest pause of learning", says, f"at most {PAUSE_S:g} s", pause.seconds <= PAUSE_S))
    return found


def _spans(events: Sequence[Event], end_s: float, longest_s: float) -> Iterator[tuple[Event, float]]:
    """Return each event with the end of the time that is its own: so long, until the next event or until the end."""
    for event, next_s in zip(events, [*(after.time_s for after in events[1:]), end_s], strict=True):
        yield event, min(next_s, event.time_s + longest_s)


def of_process(ledger: Ledger, record: Record, went: Went) -> list[Finding]:
    """Judge what a serving process acknowledged beside what was recorded of it."""
    acknowledged, report = ledger.of(went.boot), record.newest(went.boot)
    who = f"{acknowledged.target or 'unknown address'}, boot {went.boot[:8]}, {went.how or 'served all along'}"
    if report is None:
        return [Finding(who, "no report of it was recorded", "at least one", False)]
    missing = acknowledged.actions - report.actions, acknowledged.steps - report.steps, acknowledged.reward - report.reward
    found = [
        Finding(
            f"{who}: acknowledged", f"{acknowledged.actions:,} actions, {acknowledged.steps:,} steps, reward {acknowledged.reward:,.3f}"
        ),
        Finding(f"{who}: recorded", f"{report.actions:,} actions, {report.steps:,} steps, reward {report.reward:,.3f}"),
    ]
    if report.counters:
        found.append(Finding(f"{who}: where the recorded steps went", _where(report)))
    told = f"{missing[0]:,} actions, {missing[1]:,} steps, reward {missing[2]:,.3f}"
    lost_first = ledger.by_boot.get(UNKNOWN, Acknowledged()).actions
    if not went.how:
        found.append(Finding(f"{who}: acknowledged less recorded", told, "0", missing == (0, 0, 0.0)))
        return [*found, _of_episodes(acknowledged, record, went)]
    gone_s = max(went.time_s, went.done_s)
    last_s, may_lack_s = (gone_s, LAST_REPORT_S) if went.ended_s is None else (went.ended_s, LAST_REPORT_S + SEEN_LATE_S)
    in_flight = max(ledger.in_flight(went.boot, each) for each in (went.time_s, gone_s, last_s))
    reported_late = report.time_s > last_s + LAST_REPORT_S
    answered = 0
    if not reported_late:
        answered = in_flight + lost_first + ledger.answered_between(went.boot, last_s - may_lack_s, last_s)
    bar = f"from -{in_flight:,} (rows in flight) to {answered:,}"
    bar += "" if reported_late else f" (these, and those answered in the last {may_lack_s:g} s before)"
    is_met = all(-in_flight <= each <= answered for each in missing[:2])
    after_s = report.time_s - went.time_s
    says = f"{told}; last report {abs(after_s):.1f} s {'after' if after_s > 0 else 'before'} it, {acknowledged.lost:,} episodes lost"
    return [*found, Finding(f"{who}: acknowledged less recorded", says, bar, is_met), _of_episodes(acknowledged, record, went)]


def of_double_counts(record: Record) -> Finding:
    """Judge whether an episode was counted by two processes."""
    ids = collections.Counter(episode for ended in record.episodes.values() for episode, *_ in ended)
    twice = sum(count > 1 for count in ids.values())
    return Finding("episodes that are recorded twice", f"{twice:,} of {len(ids):,}", "0", twice == 0)


def _where(report: Report) -> str:
    parts = {name: int(report.counters[f"steps_{name}"]) for name in _WHERE if report.counters.get(f"steps_{name}") is not None}
    rest = report.steps - sum(parts.values())
    return ", ".join(
        [*(f"{steps:,} {name.replace('_', ' ')}" for name, steps in parts.items()), f"{rest:,} in open episodes or lost with them"]
    )


def _of_episodes(acknowledged: Acknowledged, record: Record, went: Went) -> Finding:
    """Compare the episodes that ended one by one."""
    recorded = {episode: (length, total) for episode, length, total, _ in record.ended(went.boot)}
    ours = acknowledged.episodes
    different = sum(recorded[episode] != told for episode, told in ours.items() if episode in recorded)
    absent = len(ours.keys() - recorded.keys())
    more = collections.Counter(ended for episode, _, _, ended in record.ended(went.boot) if episode not in ours)
    says = f"{len(ours):,} acknowledged; {different:,} recorded otherwise, {absent:,} not recorded; recorded beside them: "
    says += ", ".join(f"{count:,} {ended}" for ended, count in sorted(more.items())) or "0"
    is_met = different == 0 and (bool(went.how) or (absent == 0 and not more))
    return Finding(
        f"{acknowledged.target}, boot {went.boot[:8]}: episodes that ended", says, "the same" if not went.how else "none otherwise", is_met
    )
