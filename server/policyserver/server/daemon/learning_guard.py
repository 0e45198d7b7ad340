"""The guard on learning, in the daemon: has the learners guarded, and tells and records what their guards refused."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from policyserver.monitoring.reports import control_point
from policyserver.monitoring.sink import MultiSink, Sink
from policyserver.monitoring.trouble import Trouble
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.daemon_metrics import DaemonMetrics
from policyserver.server.daemon.learner_calls import of_learners
from policyserver.server.guard.findings import ADVICE, RETURN, RefusedUpdate, of_all_learners
from policyserver.server.guard.quarantine import Quarantine

if TYPE_CHECKING:
    from ray.rllib.core.learner.learner_group import LearnerGroup

logger = logging.getLogger(__name__)

Pause = Callable[..., None]
"""Takes whether learning is to pause, and as `by_guard` who says so."""
WHO = "guard"
"""Who has paused learning or refused an update, in the log and in the record."""


class LearningGuard:
    """What the daemon knows of the guard. Methods belong to the main thread, but for one; the attributes are read from any thread."""

    def __init__(self, config: ServerConfig, learners: LearnerGroup, metrics: DaemonMetrics, pause: Pause) -> None:
        """Have all learners guarded; `pause` pauses learning.

        Raises:
            LearnerCallError: One could not be guarded.
        """
        from policyserver.server.guard import update_guard  # with torch, which a start that is refused does without

        self._config = config.guard
        self._learners = learners
        self._metrics = metrics
        self._pause = pause
        self._take: Any = update_guard.take_findings
        self._quarantine = Quarantine(config.quarantine_folder, config.guard.quarantine_files, config.guard.quarantine_bytes)
        self._sink: Sink = MultiSink()
        self._tags: Mapping[str, str] = {}
        self._lock = threading.Lock()
        self._trouble = Trouble(logger, "the guard on learning")
        self.fired = 0
        """How many times it fired since the server began."""
        self.newest = ""
        """What it found the last time; empty before the first."""
        if self._config.enabled:
            of_learners(learners, update_guard.install, config=self._config)

    @property
    def has_paused(self) -> bool:
        """Whether learning is paused by it."""
        return self._metrics.is_paused_by_guard

    def records_to(self, sink: Sink, tags: Mapping[str, str]) -> None:
        """Record what is refused from now on."""
        self._sink, self._tags = sink, tags

    def look(self, *, after_iteration: bool = False) -> None:
        """Take what the guards found. Learners in other processes are asked only after an iteration, for they answer one call at a time."""
        if self._config.enabled and (after_iteration or self._learners.is_local):
            answers = list(self._learners.foreach_learner(self._take))
            for finding in of_all_learners([answer.get() for answer in answers if answer.ok]):
                self._tell_of_update(finding)
            failures = [answer.get() for answer in answers if not answer.ok]
            for error in failures:
                self._trouble.occurred(type(error).__name__, f"a learner does not say which updates it has undone: {error!r}")
            if not failures:
                self._trouble.is_over("all learners answer again")

    def tell_of_return(self, what: str, checkpoint: int, weights_seq_no: int, in_a_row: int) -> None:
        """Tell that the server went back to a checkpoint for its return, served under a policy version. From any thread."""
        text = f"rolled back to checkpoint {checkpoint}: {what}; {ADVICE[RETURN]}"
        self._tell("RollBack", RETURN, text, weights_seq_no, in_a_row)

    def _tell_of_update(self, finding: RefusedUpdate) -> None:
        kept = self._quarantine.keep(finding)
        batch = f"its batch is {kept}" if kept else "its batch is not kept"
        text = f"update {finding.weights_seq_no} undone: {finding.what}; {ADVICE[finding.reason]}; {batch}"
        self._tell("UndoUpdate", finding.reason, text, finding.weights_seq_no, finding.in_a_row)

    def _tell(self, call: str, reason: str, text: str, weights_seq_no: int, in_a_row: int) -> None:
        with self._lock:
            self.fired, self.newest = self.fired + 1, text
        self._metrics.guard_fired(reason)
        logger.error("the guard has fired, %d in a row: %s. Serving goes on with the policy before it", in_a_row, text)
        self._record(call, text, weights_seq_no)
        if self._config.pause_after and in_a_row % self._config.pause_after == 0:
            self._pause(True, by_guard=True)
            text = f"the guard has fired {in_a_row} times in a row"
            logger.error("learning is paused and serving goes on: %s; `policy-server ctl resume` lets learning go on", text)
            self._record("PauseLearning", text, weights_seq_no)

    def _record(self, call: str, request: str, weights_seq_no: int) -> None:
        self._sink.write(control_point(self._tags, call, WHO, request, None, weights_seq_no))
