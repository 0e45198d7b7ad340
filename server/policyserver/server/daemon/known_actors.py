"""What each serving actor answered last, kept while it is away, so that `ctl status` says at once which actor is where and how it is."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from policyserver.server.processes.serving_report import ServingReport
from policyserver.v1 import admin_service_pb2 as pb

AWAY_S = 4.0
"""Time without an answer after which an actor is away. One comes a second, or each two while another actor's is waited for."""
_RATE_S = 0.9
"""Least time over which actions are counted: an update of the learner has actors asked at once, too."""
_MOST_ADDRESSES = 16
_MOST_TEXT = 256
"""Most characters of an address or a name."""


@dataclass(frozen=True)
class _Known:
    """What an actor answered last."""

    answer: pb.ServingActor
    """Without what depends on the time."""
    leaves: bool
    is_replaced: bool
    """Whether its process ends, so that a successor takes its place."""
    answered_s: float
    counted: tuple[float, int]
    """Its uptime and its actions when the newest count of actions began."""
    actions_per_s: float | None


class KnownActors:
    """The newest answer of each serving actor. From any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without answers; `clock` returns seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[int, _Known] = {}

    def note(self, report: ServingReport) -> None:
        """Take an answer."""
        counters = report.counters
        answer = pb.ServingActor(
            number=report.number,
            addresses=[address[:_MOST_TEXT] for address in report.addresses[:_MOST_ADDRESSES]],
            host=report.host[:_MOST_TEXT],
            node_address=report.node_address[:_MOST_TEXT],
            weights_seq_no=int(counters["weights_seq_no"]),
            episodes_open=int(counters["episodes_open"]),
            boot_id=str(counters["boot_id"])[:_MOST_TEXT],
        )
        counted = float(counters["uptime_s"]), int(counters["actions"])
        rate: float | None = None
        is_replaced = False
        with self._lock:
            before = self._known.get(report.number)
            if before is not None and before.answer.boot_id == answer.boot_id:
                is_replaced = before.is_replaced
                seconds = counted[0] - before.counted[0]
                if seconds < _RATE_S:
                    counted, rate = before.counted, before.actions_per_s
                else:
                    rate = (counted[1] - before.counted[1]) / seconds
            self._known[report.number] = _Known(answer, report.leaves, is_replaced, self._clock(), counted, rate)

    def note_replaced(self, number: int, is_replaced: bool) -> None:
        """Take note that an actor's process ends, so that a successor takes its place: until that answers, the actor is leaving.

        Or that this was given up: then it is away until one answers.
        """
        with self._lock:
            if (known := self._known.get(number)) is not None:
                self._known[number] = dataclasses.replace(known, is_replaced=is_replaced, leaves=known.leaves and is_replaced)

    def told(self, numbers: Sequence[int], silent: Collection[int] = ()) -> list[pb.ServingActor]:
        """Describe the actors of these numbers, those that should be there, and forget others; `silent` ones are on other machines."""
        with self._lock:
            self._known = {number: known for number, known in self._known.items() if number in numbers}
            found, now_s = dict(self._known), self._clock()
        return [_told(number, found.get(number), now_s, is_silent=number in silent) for number in numbers]


def _told(number: int, known: _Known | None, now_s: float, *, is_silent: bool) -> pb.ServingActor:
    missing = pb.ACTOR_STATE_SILENT if is_silent else pb.ACTOR_STATE_AWAY
    if known is None:
        return pb.ServingActor(number=number, state=missing)
    actor = pb.ServingActor()
    actor.CopyFrom(known.answer)
    actor.since_answer_s = now_s - known.answered_s
    answers = not is_silent and actor.since_answer_s <= AWAY_S
    if known.is_replaced or (known.leaves and not is_silent):  # also while its end, which was asked for, is not over
        actor.state = pb.ACTOR_STATE_LEAVING
    else:
        actor.state = pb.ACTOR_STATE_SERVING if answers else missing
    if answers and known.actions_per_s is not None:
        actor.actions_per_s = known.actions_per_s
    return actor
