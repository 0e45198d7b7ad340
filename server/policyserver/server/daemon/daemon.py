"""The daemon: Ray's driver, which starts the serving actor, trains, records, saves, and ends in order."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from policyserver.common.settings import dump_toml
from policyserver.monitoring.reports import training_point, write_counters
from policyserver.monitoring.sink import Sink
from policyserver.server.config.algorithm import algorithm_config, check_devices, check_net, cpu_tickets
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointError, CheckpointFolder
from policyserver.server.daemon.folder_lock import FolderLock
from policyserver.server.daemon.preflight import (
    check,
    check_loopback,
    checkpoint_folder,
    make_folder,
    newest_checkpoint,
    prepare_store,
    tell_of_open_folder,
)
from policyserver.server.daemon.ray_start import RayProcess, keep_results_in
from policyserver.server.daemon.serving_watch import ServingWatch
from policyserver.server.daemon.training_hooks import DrainingError, TrainingHooks
from policyserver.server.grpc_front.listen_address import address_of, claimed, reserve_ports
from policyserver.server.processes.driver_link import DriverLink
from policyserver.server.processes.log_setup import adopt_ray_loggers
from policyserver.server.processes.processor_share import lower_priority
from policyserver.server.processes.training_report import Progress, TrainingReport, restored_report, training_report

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

    from policyserver.monitoring.page.server import PageServer

logger = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 6.0
"""Longest orderly end of the actors and of Ray; after it they are killed."""
_SINK_CLOSE_S = 2.0
"""Longest end of recording; what InfluxDB has not taken by then waits on disk for the next daemon."""
_SAVE_S = 10.0
"""Time reckoned for the last checkpoint, which nothing limits."""
_IDLE_PAUSE_S = 0.5
"""Pause after an iteration that returned at once without steps, e.g. because the serving actor is being restarted."""
_ACTOR_ABSENCE_S = 300.0
"""How long the serving actors may be absent before the daemon gives up. A restart takes about five seconds of processor time, which at ten
times the load that the processors can bear is more than a minute."""


class DaemonError(RuntimeError):
    """The daemon can't go on; the text says why."""


class _StoppedEarlyError(Exception):
    """A signal came before the server was ready."""


class Daemon:
    """One policy server, from start to end."""

    def __init__(self, config: ServerConfig) -> None:
        """Take the configuration; nothing starts before `run`."""
        self._config = config
        self._stopping = threading.Event()
        self._is_final = config.stop_is_final
        self._link: DriverLink | None = None
        self._is_ready = False
        self._progress = Progress()
        self._saved: Checkpoint | None = None

    def run(self) -> None:
        """Serve and train until SIGTERM or SIGINT. Call it in the main thread.

        Raises:
            InsecureListenError: If strangers could get in, or a certificate, a key or a token can't be used.
            SettingsError: If a setting, a file or a folder can't be used, or the newest checkpoint is another configuration's.
            AddressInUseError: If another process listens on the address, or another server has claimed it.
            OSError: If the live page's address can't be taken, or the loopback interface is down.
            FolderInUseError: If another daemon has the run folder.
            CheckpointError: If the newest checkpoint doesn't fit the configured net.
            DaemonError: If the serving actor doesn't start or come back, or training fails again and again.
        """
        config = self._config
        open_sink = check(config)
        check_loopback()
        with contextlib.ExitStack() as ending:
            ending.enter_context(claimed(config.listen.address))
            page = self._take_page_address(ending)
            ending.enter_context(_restoring_signal_handlers())
            self._handle_signals()
            make_folder(config.run_folder, "run_folder")
            tell_of_open_folder(config.run_folder)
            ending.callback(FolderLock(config.run_folder).release)
            (config.run_folder / "server.toml").write_text(dump_toml(config))
            checkpoints = checkpoint_folder(config)
            ending.callback(checkpoints.close)
            ray_process = RayProcess(config.run_folder / "ray")
            ending.callback(self._end_in_time, ray_process.stop, "Ray is left to end with this process")
            self._link = DriverLink(ray_process.folder / "driver.sock")
            ending.callback(self._link.close)
            try:
                algorithm = self._start(ray_process, checkpoints, ending)
            except (Exception, _DrainTimeoutError) as error:  # whatever ends a start that is being broken off
                if not self._stopping.is_set():
                    raise
                signal.setitimer(signal.ITIMER_REAL, 0)  # what was started is ended within bounds of its own
                logger.info("stopped before it was ready: nothing was served or learned")
                logger.debug("the start was broken off", exc_info=error)
                return
            self._is_ready = True
            with _naming_store(config):
                sink = open_sink()
                ending.callback(sink.close, _SINK_CLOSE_S)
                if page is not None:
                    page.start(config.store_file)
                    logger.info("live page at %s", page.address)
            if config.recording.enabled:
                ending.callback(ServingWatch(self._link.ask, sink, self._tags).close)
            self._train_until_stopped(algorithm, checkpoints, sink)
            if self._progress != (self._saved.progress if self._saved else Progress()):
                self._save(algorithm, checkpoints)

    def stop(self) -> None:
        """Begin to drain: no new episodes, then a checkpoint and the end. From any thread; a second call does nothing."""
        if not self._stopping.is_set():
            self._stopping.set()
            if self._link is not None:
                self._link.drain(is_final=self._is_final)

    def stop_for_good(self) -> None:
        """Stop as by SIGTERM, and have callers told that no server comes back. From any thread; does nothing once it is stopping."""
        if not self._stopping.is_set():
            self._is_final = True
            os.kill(os.getpid(), signal.SIGTERM)

    @property
    def _tags(self) -> dict[str, str]:
        """Whose the recorded points are."""
        return {"run": self._config.run, "policy": self._config.algorithm.name, "worker": f"server-{os.getpid()}"}

    # --- start ------------------------------------------------------------------------------------------------------------------------

    def _start(self, ray_process: RayProcess, checkpoints: CheckpointFolder, ending: contextlib.ExitStack) -> Algorithm:
        begun = time.monotonic()
        config = self._config
        found = newest_checkpoint(config, checkpoints)
        prepare_store(config)
        self._leave_if_stopped()
        import ray.rllib  # noqa: F401  # it has loggers to adopt before it says the first word

        adopt_ray_loggers()
        from policyserver.server.runner.env_runner import ExternalEnvRunner

        link = self._link.path if self._link else None
        rllib_config = algorithm_config(
            config, ExternalEnvRunner, driver_link=link, log_file=config.log_file.absolute(), stop_timeout_s=_longest_stop_s(config)
        )
        check_devices(rllib_config)
        check_net(rllib_config)
        self._leave_if_stopped()
        if rllib_config.env is None:
            numbers = reversed(range(max(rllib_config.num_env_runners, 1)))  # the last first: whether there is such a port
            addresses = [address_of(config.listen.address, number) for number in numbers]
            for address in addresses[:-1]:  # the first is claimed already
                ending.enter_context(claimed(address))
            ending.enter_context(reserve_ports(addresses))  # Ray opens ports, too
        ray_process.start(cpu_tickets(rllib_config), before_retry=self._leave_if_stopped)
        self._handle_signals()  # again: Ray's core, in C++, has put itself before them
        self._leave_if_stopped()
        _share_the_machine(config)
        keep_results_in(ray_process.folder)
        try:
            algorithm = rllib_config.build_algo()
        except Exception as error:
            self._leave_if_stopped()
            logger.exception("the algorithm can't be built")
            raise DaemonError("the algorithm can't be built, or its serving actor did not start; the error is in the log above") from error
        ending.callback(self._end_in_time, algorithm.stop, "a serving actor is killed with Ray")
        group = algorithm.env_runner_group
        if group.num_healthy_remote_workers() < rllib_config.num_env_runners:
            raise DaemonError("a serving actor did not start; its error is in the log above")
        self._leave_if_stopped()
        self._restore(algorithm, found)
        self._leave_if_stopped()
        _of_serving(algorithm, lambda runner: runner.open())
        endpoints = [address for served in _of_serving(algorithm, lambda runner: runner.addresses()) for address in served]
        if rllib_config.env is None and len(endpoints) < max(rllib_config.num_env_runners, 1):
            raise DaemonError(f"{config.listen.address}: a serving actor could not listen; its error is in the log above")
        logger.info(
            "serving on %s, policy version %d, ready after %.1f s",
            ", ".join(endpoints) or "what the environment opens", self._progress.weights_seq_no, time.monotonic() - begun,
        )  # fmt: skip
        return algorithm

    def _leave_if_stopped(self) -> None:
        if self._stopping.is_set():
            raise _StoppedEarlyError

    def _restore(self, algorithm: Algorithm, found: Checkpoint | None) -> None:
        """Go on from a checkpoint, and wait until the serving actors have the weights to serve."""
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
            self._progress, self._saved = found.progress, found
            logger.info("restored %s: iteration %d, policy version %d", found.path, found.progress.iteration, found.progress.weights_seq_no)
        state = algorithm.learner_group.get_state(components="learner/rl_module", inference_only=True)["learner"]
        _of_serving(algorithm, lambda runner: runner.set_state(state))
        if found is not None:
            report = restored_report(found.progress, found.path)
            _of_serving(algorithm, lambda runner: runner.report_training(report))
        self._offer_state(algorithm)

    def _offer_state(self, algorithm: Algorithm) -> None:
        """Keep the newest weights at hand for a serving actor that is restarted while the learner is busy."""
        if self._link is not None and algorithm.config.num_env_runners and algorithm.env_runner is not None:
            self._link.offer(algorithm.env_runner.get_state())

    def _take_page_address(self, ending: contextlib.ExitStack) -> PageServer | None:
        """Take the live page's address before Ray starts, so that a wrong one, or one in use, is refused at once."""
        listen = self._config.page_listen
        if listen is None:
            return None
        from policyserver.monitoring.page.server import PageServer  # with starlette and uvicorn, which a server without a page does without

        page = PageServer(listen, key="recording.page", prefix="listen.")
        ending.callback(page.close)
        return page

    # --- training ---------------------------------------------------------------------------------------------------------------------

    def _train_until_stopped(self, algorithm: Algorithm, checkpoints: CheckpointFolder, sink: Sink) -> None:
        hooks = TrainingHooks(algorithm, self._stopping)
        learner = self._config.learner
        failures = 0
        present_at = time.monotonic()
        while not self._stopping.is_set():
            begun = time.monotonic()
            try:
                report = self._iterate(algorithm, hooks)
                signal.setitimer(signal.ITIMER_REAL, 0)  # an iteration may be given up, the checkpoint after it may not
                failures = 0
            except (DrainingError, _DrainTimeoutError) as reason:
                logger.info("the unfinished iteration is left: %s", reason)
                return
            except Exception as error:
                failures += 1
                logger.exception("iteration %d failed, %d in a row; serving goes on", self._progress.iteration + 1, failures)
                if failures >= learner.max_failures:
                    self._try_to_save(algorithm, checkpoints)
                    raise DaemonError(f"{failures} training iterations failed in a row, the last with {error!r}") from error
                self._stopping.wait(learner.retry_backoff_s * 2 ** (failures - 1))
                continue
            if report is not None:
                self._finish(report, algorithm, checkpoints, sink)
            elif time.monotonic() - begun < _IDLE_PAUSE_S:
                self._stopping.wait(_IDLE_PAUSE_S)
            if algorithm.env_runner_group.num_healthy_remote_workers() or not algorithm.config.num_env_runners:
                present_at = time.monotonic()
            elif time.monotonic() - present_at > _ACTOR_ABSENCE_S:
                raise DaemonError(f"no serving actor came back within {_ACTOR_ABSENCE_S:.0f} s; its error is in the log above")

    def _iterate(self, algorithm: Algorithm, hooks: TrainingHooks) -> TrainingReport | None:
        """Run one training iteration; None if there was nothing to learn from."""
        begun = time.monotonic()
        result = algorithm.train()
        return training_report(
            result,
            self._progress,
            seconds=time.monotonic() - begun,
            learn_seconds=hooks.take_learn_seconds(),
            checkpoint=self._saved.path if self._saved else None,
        )

    def _finish(self, report: TrainingReport, algorithm: Algorithm, checkpoints: CheckpointFolder, sink: Sink) -> None:
        self._progress = report.progress
        self._offer_state(algorithm)
        every = self._config.checkpoints.every_iterations
        if every and report.iteration % every == 0 and self._try_to_save(algorithm, checkpoints) and self._saved:
            report = dataclasses.replace(report, checkpoint_path=str(self._saved.path))
        self._publish(report, algorithm, sink)

    def _publish(self, report: TrainingReport, algorithm: Algorithm, sink: Sink) -> None:
        logger.info("%s", report)
        _of_serving(algorithm, lambda runner: runner.report_training(report), wait=False)
        sink.write(training_point(self._tags, report))
        write_counters(sink, self._tags)

    def _save(self, algorithm: Algorithm, checkpoints: CheckpointFolder) -> None:
        self._saved = checkpoints.save(lambda folder: algorithm.save_to_path(str(folder)), self._progress)
        logger.info("saved %s", self._saved.path)

    def _try_to_save(self, algorithm: Algorithm, checkpoints: CheckpointFolder) -> bool:
        """Save, or say why not: a full disk is no reason to stop serving."""
        try:
            self._save(algorithm, checkpoints)
        except CheckpointError as error:
            logger.error("no checkpoint was written: %s", error)
            return False
        return True

    # --- end --------------------------------------------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        """Let SIGTERM and SIGINT drain, a second one end the process at once, and SIGALRM limit the draining."""

        def on_alarm(_: int, __: Any) -> None:
            raise _DrainTimeoutError("it took too long")

        def on_stop(number: int, _: Any) -> None:
            if self._stopping.is_set():
                os._exit(128 + number)
            what = "draining" if self._is_ready else "still starting; stops as soon as it can"
            logger.info("%s: %s, after at most %.0f s", signal.Signals(number).name, what, self._config.learner.drain_timeout_s)
            signal.signal(signal.SIGALRM, on_alarm)  # Ray's core may have taken the alarm before it let this signal through
            signal.setitimer(signal.ITIMER_REAL, max(0.001, self._config.learner.drain_timeout_s))
            self.stop()

        signal.signal(signal.SIGTERM, on_stop)
        signal.signal(signal.SIGINT, on_stop)
        signal.signal(signal.SIGHUP, on_stop)
        signal.signal(signal.SIGALRM, on_alarm)

    @staticmethod
    def _end_in_time(end: Callable[[], None], otherwise: str) -> None:
        """End a part, but don't wait for ever where it hangs."""
        signal.setitimer(signal.ITIMER_REAL, _STOP_TIMEOUT_S)
        try:
            end()
        except _DrainTimeoutError:
            logger.warning("%s: not ended within %.0f s", otherwise, _STOP_TIMEOUT_S)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def _naming_store(config: ServerConfig) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DaemonError(f"recording.store: {config.store_file} can't be used any more: {error}") from error


@contextlib.contextmanager
def _restoring_signal_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


class _DrainTimeoutError(BaseException):
    """The time to drain is over. Not an Exception, so that no handler on the way takes it for a failed iteration."""


def _longest_stop_s(config: ServerConfig) -> float:
    """Return how long an orderly stop may take: draining, the checkpoint, the sink, the actors, Ray."""
    return config.learner.drain_timeout_s + _SAVE_S + _SINK_CLOSE_S + 2 * _STOP_TIMEOUT_S


def _share_the_machine(config: ServerConfig) -> None:
    """Give way to the serving actors. Called after Ray has started, whose processes would inherit it; threads made later do."""
    import torch

    torch.set_num_threads(config.learner.threads)
    lower_priority(config.learner.niceness)


def _of_serving(algorithm: Algorithm, call: Any, *, wait: bool = True) -> list[Any]:
    """Call a function with each serving env runner: the remote ones, or the local one if it is alone."""
    group = algorithm.env_runner_group
    timeout_s = None if wait else 0.0
    results: list[Any] = group.foreach_env_runner(call, local_env_runner=not group.num_remote_workers(), timeout_seconds=timeout_s)
    return results
