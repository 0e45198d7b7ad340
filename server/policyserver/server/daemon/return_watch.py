"""The guard on the return, in the daemon: goes back to the incumbent when the policy has become worse."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future

from policyserver.server.config.guard_config import GuardConfig
from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointError
from policyserver.server.daemon.learning import Learning
from policyserver.server.daemon.roll_back import NotWrittenError, RollBackUnderWayError
from policyserver.server.guard.return_judge import ReturnJudge, ReturnVerdict
from policyserver.server.processes.serving_report import ServingReport

logger = logging.getLogger(__name__)

_REST = 10.0
"""Least time from one incumbent to the next, in multiples of the time in which its checkpoint was written."""
_WHOLE = ("terminated", "truncated")


class ReturnWatch:
    """Judges the episodes that the serving processes report. Owned by the thread that asks them."""

    def __init__(self, config: GuardConfig, learning: Learning, exploration: Callable[[], int]) -> None:
        """Begin without an incumbent; `exploration` says in which range of it episodes are played now."""
        self._config = config
        self._learning = learning
        self._exploration = exploration
        self._judge = ReturnJudge(config.return_episodes, config.return_false_alarm, config.return_drop)
        self._saving: Future[tuple[Checkpoint, int, float]] | None = None
        """What is measured next, the policy version from which on it acts, and the seconds in which it was written."""
        self._next: Checkpoint | None = None
        """What is being measured."""
        self._incumbent: Checkpoint | None = None
        self._save_after_s = 0.0
        self._lineage = learning.newest_lineage

    def report(self, report: ServingReport) -> None:
        """Take the episodes of a report, and act on them."""
        if (lineage := self._learning.newest_lineage) != self._lineage:  # an operator went back: that is no fault of the policy
            self._lineage = lineage
            self._discard_saved()
            self._judge.forget(self._learning.newest_version)
        self._take_saved()
        if not (columns := report.episodes):
            return
        rows = zip(*(columns[name] for name in ("return", "weights_seq_no", "ended", "explored", "trained", "given")), strict=True)
        episodes = [
            (returned, version)
            for returned, version, ended, explored, trained, given in rows
            if ended in _WHOLE and explored and trained and not given
        ]
        verdict = self._judge.add(episodes, self._exploration())
        if verdict is ReturnVerdict.SAVE and (self._saving is not None or time.monotonic() < self._save_after_s):
            self._judge.decline()
        elif verdict is ReturnVerdict.SAVE:
            self._saving = self._learning.save_and_hold()
        elif verdict is ReturnVerdict.REPLACE:
            self._replace()
        elif verdict is ReturnVerdict.KEEP:
            self._release_next()
        elif verdict is ReturnVerdict.ROLL_BACK:
            # the episodes that were compared may all have come with earlier reports
            self._roll_back(max([int(report.counters["weights_seq_no"]), *(version for _, version in episodes)]))

    def _take_saved(self) -> None:
        if self._saving is None or not self._saving.done():
            return
        saving, self._saving = self._saving, None
        if saving.cancelled() or (error := saving.exception()) is not None:
            logger.warning("the guard on the return has no new incumbent, for no checkpoint was written: %s", error)
            self._judge.decline()
            return
        checkpoint, version, seconds = saving.result()
        self._release_next()  # what was measured in another range of exploration will never be compared
        self._next = checkpoint
        self._save_after_s = time.monotonic() + _REST * seconds
        self._judge.begin(version)

    def _replace(self) -> None:
        assert self._next is not None
        if self._incumbent is not None and self._incumbent is not self._next:
            self._learning.release(self._incumbent)
        self._incumbent, self._next = self._next, None
        number, measured = self._incumbent.number, self._judge.incumbent
        logger.info("checkpoint %d is the incumbent of the guard on the return: a mean of %s", number, measured)

    def _discard_saved(self) -> None:
        """Let go of what is being saved or measured: it is of a policy that was rolled back."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.add_done_callback(self._release_saved)
        self._release_next()

    def _release_next(self) -> None:
        if self._next is not None and self._next is not self._incumbent:
            self._learning.release(self._next)
        self._next = None

    def _release_saved(self, saving: Future[tuple[Checkpoint, int, float]]) -> None:
        if not saving.cancelled() and saving.exception() is None:
            self._learning.release(saving.result()[0])

    def _roll_back(self, served_version: int) -> None:
        judge, incumbent = self._judge, self._incumbent
        assert incumbent is not None
        assert judge.newest is not None
        what = (
            f"{judge.newest.episodes} episodes have a mean return of {judge.newest}, those of checkpoint {incumbent.number} had "
            f"{judge.incumbent}"
        )
        try:
            order = self._learning.roll_back(incumbent.number, served_version)
        except NotWrittenError as error:
            logger.warning("the guard on the return: %s", error)
            order = error.order
        except (CheckpointError, RollBackUnderWayError) as error:
            logger.warning("the guard on the return could not go back to checkpoint %d: %s", incumbent.number, error)
            judge.forget()
            return
        version = order.served_version
        self._lineage = order.lineage
        self._discard_saved()
        self._next = incumbent
        judge.begin_again(version)
        self._learning.guard.tell_of_return(what, incumbent.number, version, judge.in_a_row)
