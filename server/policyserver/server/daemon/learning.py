"""What the daemon's main thread does while it serves: training iterations, checkpoints, and what the admin service asks in between."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from policyserver.monitoring.reports import training_point, write_counters
from policyserver.monitoring.sink import Sink
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.actor_absence import ActorAbsence
from policyserver.server.daemon.actor_ends import ActorEnds
from policyserver.server.daemon.actor_health import ActorHealth
from policyserver.server.daemon.batch_collection import collect_together
from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointError, CheckpointFolder
from policyserver.server.daemon.daemon_errors import DaemonError, DrainTimeoutError
from policyserver.server.daemon.daemon_metrics import DaemonMetrics
from policyserver.server.daemon.drain_alarm import DrainAlarm
from policyserver.server.daemon.learning_guard import LearningGuard
from policyserver.server.daemon.learning_pause import LearningPause
from policyserver.server.daemon.remote_learners import state_to_save
from policyserver.server.daemon.returned_actors import ReturnedActors
from policyserver.server.daemon.roll_back import (
    NotWrittenError,
    RollBack,
    RollBackUnderWayError,
    check_served,
    count_from,
    follow,
    learner_version,
    restore_under,
    state_of,
)
from policyserver.server.daemon.safe_point import SafePoint
from policyserver.server.daemon.served_state import SERVED_FILE, of_serving, weights_sha256
from policyserver.server.daemon.serving_actors import ServingActors
from policyserver.server.daemon.training_hooks import DrainingError, IterationLeftError, TrainingHooks
from policyserver.server.guard.return_judge import exploration_range
from policyserver.server.processes.link import ROLL_BACK, Link
from policyserver.server.processes.training_report import Progress, TrainingReport, restored_report, training_report

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

logger = logging.getLogger(__name__)

_IDLE_PAUSE_S = 0.5
"""Pause after an iteration that returned at once without steps, e.g. because the serving actor is being restarted."""
_ROLL_BACK_S = 5.0
"""Longest time that serving actors are given to serve a checkpoint. It takes them milliseconds."""


class Learning:
    """Trains an algorithm and saves it. All methods but those that say otherwise belong to the main thread."""

    def __init__(
        self,
        config: ServerConfig,
        algorithm: Algorithm,
        checkpoints: CheckpointFolder,
        link: Link,
        safe_point: SafePoint,
        stopping: threading.Event,
        metrics: DaemonMetrics,
        health: ActorHealth | None = None,
        alarm: DrainAlarm | None = None,
    ) -> None:
        """Hook into the algorithm; nothing is trained yet. `health` knows of a cluster's actors which are silent, `alarm` limits a stop."""
        self._config = config
        self._algorithm = algorithm
        self._checkpoints = checkpoints
        self._link = link
        self._safe_point = safe_point
        self._stopping = stopping
        self._metrics = metrics
        self._alarm = alarm or DrainAlarm()
        self._beginning = threading.Lock()  # held while a roll-back begins: there is one at a time
        self.actors = ServingActors(config, algorithm, link, safe_point)
        """Those whose steps it learns from; from any thread."""
        self.pause = LearningPause(link, safe_point, metrics).set
        """Has learning pause, or go on; from any thread."""
        self.guard = LearningGuard(config, algorithm.learner_group, metrics, self.pause)
        self.begin_look: Callable[[], object] = lambda: None
        """Called before each update."""
        self.end_look: Callable[[], object] = lambda: None
        """Called after each update, before its weights are pushed."""
        self.ends = ActorEnds(algorithm, self.actors, safe_point)
        collect_together(algorithm, link, safe_point, health)
        ReturnedActors(algorithm, health)
        self._absence = ActorAbsence(algorithm, safe_point.clock_s)
        self._hooks = TrainingHooks(
            algorithm, stopping, safe_point.pass_by, lambda: self._is_rolled_back, lambda: self.begin_look(), self._after_update
        )
        self._iterated_lineage = 0
        self._replays = algorithm.local_replay_buffer is not None and config.rollback.keep_replay
        # Read from any thread.
        self.progress = Progress()
        self.saved: Checkpoint | None = None
        self.failures = 0
        """Training iterations that failed in a row."""
        self.last_failure = ""
        self.iterated_s: float | None = None
        """When the newest iteration ended, by `time.monotonic`."""
        self.lineage = 0
        """How many times the run was rolled back; what RLlib pushes after that is told apart by it."""
        self.restored_from = 0
        """Number of the checkpoint to which it was rolled back last; 0 if it was not."""
        self.rolling_back: RollBack | None = None
        """The roll-back that the learner has not followed yet."""

    @property
    def is_updating(self) -> bool:
        """Whether an update of the weights runs. From any thread."""
        return self._hooks.is_updating

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
                restore_under(algorithm, found, found.progress.weights_seq_no)
            except Exception as error:
                raise CheckpointError(
                    f"{found.path}: doesn't fit the configured algorithm and net; go back to the settings it was made with, choose another "
                    f"run_folder, or set checkpoints.restore = false: {error}"
                ) from error
            self.progress, self.saved = found.progress, found
            self.lineage, self.restored_from = found.lineage, found.restored_from
            logger.info("restored %s: iteration %d, policy version %d", found.path, found.progress.iteration, found.progress.weights_seq_no)
        state = algorithm.learner_group.get_state(components="learner/rl_module", inference_only=True)["learner"]
        of_serving(algorithm, lambda runner: runner.set_state(state))
        if found is not None:
            report = restored_report(found.progress, found.path)
            of_serving(algorithm, lambda runner: runner.report_training(report))
        self._offer_state()

    def _after_update(self) -> None:
        self.guard.look()
        self.end_look()

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
        self.guard.records_to(sink, tags)
        try:
            try:
                self._train_until_stopped(sink, tags)
            finally:
                self._alarm.end()  # an iteration may be given up, the checkpoint after it may not
        except DrainTimeoutError as reason:  # wherever it came
            logger.info("the unfinished iteration is left: %s", reason)
        finally:
            self._safe_point.close()
            self.ends.close()
        if self.rolling_back is not None:  # the learner has not followed: what it has is not what is served
            self.rolling_back.is_served.wait()  # and written
        elif self.progress != (self.saved.progress if self.saved else Progress()):
            self.save()

    def _train_until_stopped(self, sink: Sink, tags: Mapping[str, str]) -> None:
        learner, clock_s = self._config.learner, self._safe_point.clock_s
        while not self._stopping.is_set():
            begun = clock_s()
            try:
                self._safe_point.pass_by()
                if (order := self.rolling_back) is not None:  # the learner could not follow it, or it has begun just now
                    self._follow(order)
                self._iterated_lineage = self.lineage
                report = self._iterate()
                self.failures, self.last_failure = 0, ""
            except IterationLeftError as reason:
                logger.info("the iteration is left, its steps and its update are discarded: %s", reason)
                self._hooks.take_learn_seconds()
                self._hooks.sample_shares.take()
                continue
            except DrainingError as reason:
                logger.info("the unfinished iteration is left: %s", reason)
                return
            except Exception as error:
                self.failures, self.last_failure = self.failures + 1, repr(error)
                self._metrics.iteration_failed()
                logger.exception("iteration %d failed, %d in a row; serving goes on", self.progress.iteration + 1, self.failures)
                if self.failures >= learner.max_failures:
                    self._try_to_save()
                    raise DaemonError(f"{self.failures} training iterations failed in a row, the last with {error!r}") from error
                self._stopping.wait(learner.retry_backoff_s * 2 ** (self.failures - 1))
                continue
            if report is not None:
                with self._alarm.held():
                    self._finish(report, sink, tags)
            elif clock_s() - begun < _IDLE_PAUSE_S:
                self._stopping.wait(_IDLE_PAUSE_S)
            if too_long := self._absence.look():
                self._try_to_save()
                raise DaemonError(too_long)

    def _iterate(self) -> TrainingReport | None:
        """Run one training iteration; None if there was nothing to learn from."""
        begun = self._safe_point.clock_s()
        result = self._algorithm.train()
        self.guard.look(after_iteration=True)
        return training_report(
            result,
            self.progress,
            seconds=self._safe_point.clock_s() - begun,
            learn_seconds=self._hooks.take_learn_seconds(),
            effective_sample_share=self._hooks.sample_shares.take(),
            checkpoint=self.saved.path if self.saved else None,
        )

    def _finish(self, report: TrainingReport, sink: Sink, tags: Mapping[str, str]) -> None:
        report = dataclasses.replace(report, steps_undelivered=self._metrics.take_undelivered())
        self.progress, self.iterated_s = report.progress, time.monotonic()
        self._offer_state()
        every = self._config.checkpoints.every_iterations
        if every and report.iteration % every == 0 and self._try_to_save() and self.saved:
            report = dataclasses.replace(report, checkpoint_path=str(self.saved.path))
        logger.info("%s", report)
        self._metrics.iteration(report)
        of_serving(self._algorithm, lambda runner: runner.report_training(report), wait=False)
        sink.write(training_point(tags, report))
        write_counters(sink, tags)

    def save(self, *, pin: bool = False) -> Checkpoint:
        """Write a checkpoint.

        Raises:
            CheckpointError: It can't be written, or the learner has not followed a roll-back yet, so that the newest checkpoint would be
                what was rolled back; those there are untouched.
        """
        if (order := self.rolling_back) is not None:
            raise CheckpointError(f"not saved: expected no roll-back under way, received one to {order.source.path}; save after it")
        with self._alarm.held():  # also where `ctl save` has it written in the middle of an iteration
            served = state_to_save(self._algorithm)

            def write(folder: Path) -> None:
                self._algorithm.save_to_path(str(folder))
                (folder / SERVED_FILE).write_bytes(pickle.dumps(served, pickle.HIGHEST_PROTOCOL))

            self.saved = self._checkpoints.save(
                write, self.progress, weights_sha256(served), pin=pin, lineage=self.lineage, restored_from=self.restored_from
            )
        self._metrics.saved(self.saved)
        logger.info("saved %s", self.saved.path)
        return self.saved

    def save_and_hold(self) -> Future[tuple[Checkpoint, int, float]]:
        """Save a checkpoint at the safe point, and keep it until it is released. From any thread.

        Returns:
            The checkpoint, the policy version that it is served as, and the seconds in which it was written.
        """

        def save() -> tuple[Checkpoint, int, float]:
            begun = time.monotonic()
            saved = self.save()
            self._checkpoints.use(saved.number, used=True)
            return saved, max(self.progress.weights_seq_no, learner_version(self._algorithm)), time.monotonic() - begun

        return self._safe_point.ask(save)

    def release(self, checkpoint: Checkpoint) -> None:
        """Let a checkpoint that was held go when enough are newer. From any thread."""
        self._checkpoints.use(checkpoint.number, used=False)

    def exploration(self) -> int:
        """Tell in which range of exploration episodes are played now: a number that is the same for similar policies. From any thread."""
        config = self._algorithm.config
        return exploration_range(config.epsilon, self.progress.steps_total) if self._config.algorithm.name == "DQN" else 0

    def _try_to_save(self) -> bool:
        """Save, or say why not: a full disk is no reason to stop serving."""
        try:
            self.save()
        except CheckpointError as error:
            logger.error("no checkpoint was written: %s", error)
            return False
        return True

    # --- roll-back --------------------------------------------------------------------------------------------------------------------

    @property
    def newest_lineage(self) -> int:
        """How many roll-backs of the run have begun. From any thread."""
        return order.lineage if (order := self.rolling_back) is not None else self.lineage

    @property
    def newest_version(self) -> int:
        """Highest policy version that the daemon knows of. From any thread."""
        order = self.rolling_back
        return max(self.progress.weights_seq_no, order.weights_seq_no if order is not None else 0, learner_version(self._algorithm))

    @property
    def _is_rolled_back(self) -> bool:
        """Whether what the running iteration has collected or learned is of a policy that was rolled back."""
        return self.rolling_back is not None or self.lineage != self._iterated_lineage

    def roll_back(self, wanted: int | Checkpoint, served_version: int) -> RollBack:
        """Serve a checkpoint at once, write it as the newest one, and have the learner follow. From any thread.

        Args:
            wanted: The checkpoint's number, or a checkpoint of another run.
            served_version: The highest policy version that an actor says it serves.

        Raises:
            RollBackUnderWayError: To another checkpoint.
            NotWrittenError: It is served, and could not be written as the newest one.
            CheckpointError: It is not there or can't be used, and nothing has changed.
        """
        number = wanted if isinstance(wanted, int) else wanted.number
        path = None if isinstance(wanted, int) else wanted.path
        with self._beginning:
            if (under_way := self.rolling_back) is not None:
                if under_way.source.number == number and path in (None, under_way.source.path):
                    return under_way
                raise RollBackUnderWayError(
                    f"checkpoint: expected no other roll-back under way, received one to {number} while the learner must still follow one "
                    f"to {under_way.source.number}; ask again when `policy-server ctl status` names none"
                )
            self._checkpoints.use(number, used=True)
            try:
                source = self._checkpoints.whole(wanted) if isinstance(wanted, int) else wanted
                state = state_of(source)
            except BaseException:  # also a disk's own error
                self._checkpoints.use(number, used=False)
                raise
            version = 1 + max(served_version, self.progress.weights_seq_no, learner_version(self._algorithm))
            order = self.rolling_back = RollBack(source, version, self.lineage + 1)
        try:
            self._safe_point.ask(lambda: self._follow(order))
            state |= {"weights_seq_no": version, "lineage": order.lineage}
            self._link.offer({**state, "rolled_back": True})
            order.actors = self._link.ask(_ROLL_BACK_S, kind=ROLL_BACK, content=(state, not self._replays))
            check_served(order)
            progress = dataclasses.replace(self.progress, weights_seq_no=version)
            order.result = self._checkpoints.copy(source, progress, order.lineage)
            self._metrics.saved(order.result)
        except CheckpointError as error:
            self._checkpoints.mark_roll_back(source, order.served_version, order.lineage)
            raise NotWrittenError(order, error) from error.__cause__
        finally:
            order.is_served.set()
        logger.info(
            "rolled back to %s: %d serving actors have it as policy version %d, it is %s now; the learner follows",
            source.path, len(order.actors), version, order.result.path,
        )  # fmt: skip
        return order

    def _follow(self, order: RollBack) -> None:
        """Have the learner go on from where the actors are, unless it does; the iteration is left and tries again where that fails.

        Raises:
            DaemonError: The learner could not follow.
        """
        if self.rolling_back is not order:
            return
        order.is_served.wait()
        version = order.served_version
        try:
            self._restore(order, version)
        except Exception as error:
            self.last_failure = f"the learner could not follow a roll-back to {order.source.path}: {error!r}"
            logger.exception("%s", self.last_failure)
            raise DaemonError(self.last_failure) from error
        logger.info("the learner goes on from %s as policy version %d", order.source.path, version)
        if order.result is None:
            self._try_to_save()

    def _restore(self, order: RollBack, version: int) -> None:
        follow(self._algorithm, order, version, keep_replay=self._config.rollback.keep_replay)
        self.progress = dataclasses.replace(self.progress, weights_seq_no=version)
        self.lineage, self.restored_from = order.lineage, order.source.number
        count_from(self._algorithm, order.lineage)
        self._offer_state()
        self._checkpoints.use(order.source.number, used=False)
        self.saved = order.result or self.saved
        self.rolling_back = None
