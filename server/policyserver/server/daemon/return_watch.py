"""The guard on the return, in the daemon: goes back to the incumbent when the policy has become worse."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future

from policyserver.server.config.guard_config import GuardConfig
from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointError
from policyserver.server.daemon.learning import Learning
from policyserver.server.daemon.roll_back import RollBackUnderWayError
from policyserver.server.guard.return_judge import Measured, ReturnJudge, ReturnVerdict
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
        self._judge = ReturnJudge(config.return_episodes, config.return_sigmas, config.return_drop)
        self._saving: Future[tuple[Checkpoint, int, float]] | None = None
        """The next incumbent, the policy version from which on it acts, and the seconds in which it was written."""
        self._incumbent: Checkpoint | None = None
        self._save_after_s = 0.0
        self._told: Measured | None = None

    def report(self, report: ServingReport) -> None:
        """Take the episodes of a report, and act on them."""
        self._take_saved()
        if not (columns := report.episodes):
            return
        rows = zip(*(columns[name] for name in ("return", "weights_seq_no", "ended", "explored", "trained", "given")), strict=True)
        episodes = [
            (returned, version)
            for returned, version, ended, explored, trained, given in rows
            if ended in _WHOLE and explored and trained and not given
        ]
        judge = self._judge
        verdict = judge.add(episodes, self._exploration())
        if self._incumbent is not None and judge.incumbent is not None and judge.incumbent is not self._told:
            self._told = judge.incumbent
            logger.info("checkpoint %d is the incumbent of the guard on the return: a mean of %s", self._incumbent.number, self._told)
        if verdict is ReturnVerdict.SAVE and time.monotonic() < self._save_after_s:
            judge.decline()
        elif verdict is ReturnVerdict.SAVE:
            self._saving = self._learning.save_and_hold()
        elif verdict is ReturnVerdict.ROLL_BACK:
            self._roll_back(max(version for _, version in episodes))

    def _take_saved(self) -> None:
        if self._saving is None or not self._saving.done():
            return
        saving, self._saving = self._saving, None
        if saving.cancelled() or (error := saving.exception()) is not None:
            logger.warning("the guard on the return has no new incumbent, for no checkpoint was written: %s", error)
            self._judge.forget()
            return
        if self._incumbent is not None:
            self._learning.release(self._incumbent)
        self._incumbent, version, seconds = saving.result()
        self._save_after_s = time.monotonic() + _REST * seconds
        self._judge.begin(version)

    def _roll_back(self, served_version: int) -> None:
        judge, incumbent = self._judge, self._incumbent
        assert incumbent is not None
        what = (
            f"{self._config.return_episodes} episodes have a mean return of {judge.newest}, those of checkpoint {incumbent.number} had "
            f"{judge.incumbent}"
        )
        try:
            order = self._learning.roll_back(incumbent.number, served_version)
        except (CheckpointError, RollBackUnderWayError) as error:
            logger.warning("the guard on the return could not go back to checkpoint %d: %s", incumbent.number, error)
            judge.forget()
            return
        version = max([order.weights_seq_no, *(actor.weights_seq_no for actor in order.actors)])
        judge.begin(version)
        self._learning.guard.tell_of_return(what, incumbent.number, version, judge.in_a_row)
