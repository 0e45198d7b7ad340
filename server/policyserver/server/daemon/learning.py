"""What the daemon's main thread does while it serves: training iterations, checkpoints, and what the admin service asks in between."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from policyserver.monitoring.reports import training_point, write_counters
from policyserver.monitoring.sink import Sink
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointError, CheckpointFolder
from policyserver.server.daemon.daemon_errors import DaemonError, DrainTimeoutError
from policyserver.server.daemon.safe_point import SafePoint
from policyserver.server.daemon.served_state import SERVED_FILE, of_serving, served_state, weights_sha256
from policyserver.server.daemon.training_hooks import DrainingError, TrainingHooks
from policyserver.server.processes.driver_link import DriverLink
from policyserver.server.processes.training_report import Progress, TrainingReport, restored_report, training_report

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

logger = logging.getLogger(__name__)

_IDLE_PAUSE_S = 0.5
"""Pause after an iteration that returned at once without steps, e.g. because the serving actor is being restarted."""
_ACTOR_ABSENCE_S = 300.0
"""How long the serving actors may be absent before the daemon gives up. A restart takes about five seconds of processor time, which at ten
times the load that the processors can bear is more than a minute."""


class Learning:
    """Trains an algorithm and saves it. All methods but those that say otherwise belong to the main thread."""

    def __init__(
        self,
        config: ServerConfig,
        algorithm: Algorithm,
        checkpoints: CheckpointFolder,
        link: DriverLink,
        safe_point: SafePoint,
        stopping: threading.Event,
    ) -> None:
        """Hook into the algorithm; nothing is trained yet."""
        self._config = config
        self._algorithm = algorithm
        self._checkpoints = checkpoints
        self._link = link
        self._safe_point = safe_point
        self._stopping = stopping
        self._hooks = TrainingHooks(algorithm, stopping, safe_point.pass_by)
        # Read from any thread.
        self.progress = Progress()
        self.saved: Checkpoint | None = None
        self.failures = 0
        """Training iterations that failed in a row."""
        self.last_failure = ""
        self.iterated_s: float | None = None
        """When the newest iteration ended, by `time.monotonic`."""

    @property
    def is_updating(self) -> bool:
        """Whether an update of the weights runs. From any thread."""
        return self._hooks.is_updating

    @property
    def num_env_runners(self) -> int:
        """Serving actors that there should be; 0 where the driver itself serves. From any thread."""
        return int(self._algorithm.config.num_env_runners)

    def restore(self, found: Checkpoint | None) -> None:
        """Go on from a checkpoint, and wait until the serving actors have the weights to serve.

        Raises:
            CheckpointError: It doesn't fit.
        """
        algorithm = self._algorithm
        if found is None:
            logger.info("fresh weights: no checkpoint in %s", self._config.checkpoints_folder)
        else:
            try:
                algorithm.restore_from_path(str(found.path))
            except Exception as error:
                raise CheckpointError(
                    f"{found.path}: doesn't fit the configured algorithm and net; go back to the settings it was made with, choose another "
                    f"run_folder, or set checkpoints.restore = false: {error}"
                ) from error
            self.progress, self.saved = found.progress, found
            logger.info("restored %s: iteration %d, policy version %d", found.path, found.progress.iteration, found.progress.weights_seq_no)
        state = algorithm.learner_group.get_state(components="learner/rl_module", inference_only=True)["learner"]
        of_serving(algorithm, lambda runner: runner.set_state(state))
        if found is not None:
            report = restored_report(found.progress, found.path)
            of_serving(algorithm, lambda runner: runner.report_training(report))
        self._offer_state()

    def _offer_state(self) -> None:
        """Keep the newest weights at hand for a serving actor that is restarted while the learner is busy."""
        algorithm = self._algorithm
        if algorithm.config.num_env_runners and algorithm.env_runner is not None:
            self._link.offer(algorithm.env_runner.get_state())

    def train_until_stopped(self, sink: Sink, tags: Mapping[str, str]) -> None:
        """Train, and save what is new at the end.

        Raises:
            DaemonError: The serving actors don't come back, or iterations fail again and again.
        """
        try:
            self._train_until_stopped(sink, tags)
        finally:
            self._safe_point.close()
        if self.progress != (self.saved.progress if self.saved else Progress()):
            self.save()

    def _train_until_stopped(self, sink: Sink, tags: Mapping[str, str]) -> None:
        learner, group = self._config.learner, self._algorithm.env_runner_group
        clock_s = self._safe_point.clock_s
        present_at = clock_s()
        while not self._stopping.is_set():
            begun = clock_s()
            try:
                self._safe_point.pass_by()
                report = self._iterate()
                signal.setitimer(signal.ITIMER_REAL, 0)  # an iteration may be given up, the checkpoint after it may not
                self.failures, self.last_failure = 0, ""
            except (DrainingError, DrainTimeoutError) as reason:
                logger.info("the unfinished iteration is left: %s", reason)
                return
            except Exception as error:
                self.failures, self.last_failure = self.failures + 1, repr(error)
                logger.exception("iteration %d failed, %d in a row; serving goes on", self.progress.iteration + 1, self.failures)
                if self.failures >= learner.max_failures:
                    self._try_to_save()
                    raise DaemonError(f"{self.failures} training iterations failed in a row, the last with {error!r}") from error
                self._stopping.wait(learner.retry_backoff_s * 2 ** (self.failures - 1))
                continue
            if report is not None:
                self._finish(report, sink, tags)
            elif clock_s() - begun < _IDLE_PAUSE_S:
                self._stopping.wait(_IDLE_PAUSE_S)
            if group.num_healthy_remote_workers() or not self._algorithm.config.num_env_runners:
                present_at = clock_s()
            elif clock_s() - present_at > _ACTOR_ABSENCE_S:
                raise DaemonError(f"no serving actor came back within {_ACTOR_ABSENCE_S:.0f} s; its error is in the log above")

    def _iterate(self) -> TrainingReport | None:
        """Run one training iteration; None if there was nothing to learn from."""
        begun = self._safe_point.clock_s()
        result = self._algorithm.train()
        return training_report(
            result,
            self.progress,
            seconds=self._safe_point.clock_s() - begun,
            learn_seconds=self._hooks.take_learn_seconds(),
            checkpoint=self.saved.path if self.saved else None,
        )

    def _finish(self, report: TrainingReport, sink: Sink, tags: Mapping[str, str]) -> None:
        self.progress, self.iterated_s = report.progress, time.monotonic()
        self._offer_state()
        every = self._config.checkpoints.every_iterations
        if every and report.iteration % every == 0 and self._try_to_save() and self.saved:
            report = dataclasses.replace(report, checkpoint_path=str(self.saved.path))
        logger.info("%s", report)
        of_serving(self._algorithm, lambda runner: runner.report_training(report), wait=False)
        sink.write(training_point(tags, report))
        write_counters(sink, tags)

    def save(self, *, pin: bool = False) -> Checkpoint:
        """Write a checkpoint.

        Raises:
            CheckpointError: It can't be written; those there are untouched.
        """
        served = served_state(self._algorithm)

        def write(folder: Path) -> None:
            self._algorithm.save_to_path(str(folder))
            (folder / SERVED_FILE).write_bytes(pickle.dumps(served, pickle.HIGHEST_PROTOCOL))

        self.saved = self._checkpoints.save(write, self.progress, weights_sha256(served), pin=pin)
        logger.info("saved %s", self.saved.path)
        return self.saved

    def _try_to_save(self) -> bool:
        """Save, or say why not: a full disk is no reason to stop serving."""
        try:
            self.save()
        except CheckpointError as error:
            logger.error("no checkpoint was written: %s", error)
            return False
        return True
