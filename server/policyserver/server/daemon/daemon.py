"""The daemon: Ray's driver, which starts the serving actor, trains, records, saves, and ends in order."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from policyserver.common.service_manager import ServiceManager
from policyserver.common.settings import dump_toml
from policyserver.server.config.algorithm import algorithm_config, check_devices, check_net, cpu_tickets
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.control.admin_security import network_access
from policyserver.server.control.admin_server import AdminServer
from policyserver.server.daemon.actor_arguments import configured_by_value
from policyserver.server.daemon.actor_health import ActorHealth
from policyserver.server.daemon.actor_link import ActorLink, open_link
from policyserver.server.daemon.actor_loads import ActorLoads
from policyserver.server.daemon.admin_answers import AdminAnswers
from policyserver.server.daemon.bounded_fetch import bound_fetches
from policyserver.server.daemon.checkpoints import CheckpointFolder
from policyserver.server.daemon.daemon_errors import DaemonError, DrainTimeoutError, last_line
from policyserver.server.daemon.daemon_metrics import DaemonMetrics
from policyserver.server.daemon.drain_alarm import DrainAlarm
from policyserver.server.daemon.folder_lock import FolderInUseError
from policyserver.server.daemon.folder_owner import ClaimLeftError, FolderOwner
from policyserver.server.daemon.learner_network import reaching_each_other
from policyserver.server.daemon.learning import Learning
from policyserver.server.daemon.loaded_policies import LinkedActors, LoadedPolicies, load_configured
from policyserver.server.daemon.lost_alarm import raised_again
from policyserver.server.daemon.placement import placing
from policyserver.server.daemon.preflight import (
    check,
    check_loopback,
    checkpoint_at,
    checkpoint_folder,
    make_folder,
    newest_checkpoint,
    prepare_store,
    tell_of_open_folder,
)
from policyserver.server.daemon.ray_join import JoinedRay, keep_state_server_here
from policyserver.server.daemon.ray_start import RayProcess, keep_results_in
from policyserver.server.daemon.remote_learners import keep_in_service, share_the_machine
from policyserver.server.daemon.reported_once import ReportedOnce
from policyserver.server.daemon.return_watch import ReturnWatch
from policyserver.server.daemon.safe_point import SafePoint
from policyserver.server.daemon.second_signal import SecondSignal
from policyserver.server.daemon.served_state import of_serving
from policyserver.server.daemon.serving_watch import ServingWatch
from policyserver.server.daemon.signs_of_life import SignsOfLife
from policyserver.server.daemon.web_servers import serve_metrics, take_page_address
from policyserver.server.grpc_front.listen_address import address_of, claimed, reserve_ports
from policyserver.server.grpc_front.listen_security import ListenSecrets
from policyserver.server.processes.link import INTERRUPT, Link
from policyserver.server.processes.log_setup import adopt_ray_loggers
from policyserver.server.processes.processor_share import lower_priority
from policyserver.server.processes.serving_report import ServingReport

logger = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 6.0
"""Longest orderly end of the actors and of Ray; after it they are killed."""
_SINK_CLOSE_S = 2.0
"""Longest end of recording; what InfluxDB has not taken by then waits on disk for the next daemon."""
_SINK_UNDER_WAY_S = 7.0
"""Time reckoned for what recording has under way then: a request to InfluxDB takes 5 s at most, unless that is set otherwise."""
_LOOK_S = 10.0
"""Longest time that an update waits for the guard on the return, which looks while the update runs and goes back in a second at most."""
_SAVE_S = 10.0
"""Time reckoned for the last checkpoint, which nothing limits."""


class _StoppedEarlyError(Exception):
    """A signal came before the server was ready."""


class Daemon:
    """One policy server, from start to end."""

    def __init__(self, config: ServerConfig) -> None:
        """Take the configuration; nothing starts before `run`."""
        self._given, self._config = config, config.with_instance_id()
        self._stopping = threading.Event()
        self._manager = ServiceManager()
        self._is_final = config.stop_is_final
        self._link: Link | None = None
        self._actor_health = ActorHealth()
        self._safe_point = SafePoint(self._interrupt_sample, self._stopping)
        self._alarm, self._second_signal = DrainAlarm(), SecondSignal()
        self._is_ready = False
        store = config.store_file if config.recording.enabled else None
        self._metrics = DaemonMetrics(config.run_folder, store, learns=lambda: not self._safe_point.is_paused)
        self._metrics.silent = lambda: len(self._actor_health.silent)
        self._metrics.take_undelivered = self._actor_health.hand_offs.take
        self._told_to_stop = False
        self._told_to_stop_lock = threading.Lock()

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
        if not config.ray.joins:
            check_loopback()
        with contextlib.ExitStack() as ending:
            if not config.ray.joins:  # else serving actors listen on their own machines
                ending.enter_context(claimed(config.listen.address))
            if config.admin.address is not None:
                ending.enter_context(claimed(config.admin.address))
            page = take_page_address(config, ending)
            serve_metrics(config, self._metrics, ending)
            ending.enter_context(_restoring_signal_handlers())
            ending.enter_context(raised_again())
            self._handle_signals()
            make_folder(config.run_folder, "run_folder")
            tell_of_open_folder(config.run_folder)
            try:
                owner = FolderOwner(config.run_folder, self._lose, self._stopping.wait)
            except ClaimLeftError:
                return
            ending.callback(owner.release)
            (config.run_folder / "server.toml").write_text(dump_toml(self._given))
            checkpoints = checkpoint_folder(config)
            checkpoints.refusal = lambda: owner.loss
            ending.callback(checkpoints.close)
            pointer = config.run_folder / "ray"
            ray_process = JoinedRay(config.ray, pointer, self._stopping.wait) if config.ray.joins else RayProcess(pointer)
            ending.callback(self._end_in_time, ray_process.stop, "Ray is left to end with this process")
            secrets = ListenSecrets.read(config.listen) if config.ray.send_secrets else None
            actors = open_link(ray_process, config.ray, self._actor_health.note, secrets)
            link = self._link = actors.link
            ending.callback(link.close)
            answers = AdminAnswers(
                config, link, checkpoints, self._safe_point, self._stopping, stop=self.stop_for, stop_timeout_s=_longest_stop_s(config)
            )
            answers.actor_health = self._actor_health
            try:
                learning = self._start(ray_process, actors, checkpoints, answers, ending)
            except (Exception, DrainTimeoutError) as error:  # whatever ends a start that is being broken off
                if not self._stopping.is_set():
                    raise
                self._alarm.end()  # what was started is ended within bounds of its own
                logger.info("stopped before it was ready: nothing was served or learned")
                logger.debug("the start was broken off", exc_info=error)
                return
            self._is_ready = True
            with _naming_store(config):
                sink = open_sink()
                ending.callback(sink.close, _SINK_CLOSE_S)
                if page is not None:
                    page.start(config.store_file, self._metrics.routes())
                    logger.info("live page at %s", page.address)
            self._metrics.records_to(sink)
            returns = ReturnWatch(config.guard, learning, learning.exploration) if config.guard.on_return else None

            loads = None if config.ray.joins else ActorLoads(link)

            def on_report(report: ServingReport) -> None:
                self._metrics.serving(report)
                answers.known_actors.note(report)
                if loads is not None:
                    loads.note(report)
                if returns is not None:
                    returns.report(report)

            signs = SignsOfLife(self._manager, lambda: self._safe_point.passes, lambda: f"iteration {learning.progress.iteration}")

            def after_round(answered: int) -> None:
                signs.look(answered)
                if loads is not None:
                    loads.look()

            watch = ServingWatch(ReportedOnce(link).ask, sink, self._tags, on_report, after_round)
            ending.callback(watch.close)
            if returns is not None:
                learning.begin_look, learning.end_look = watch.look, functools.partial(watch.wait_looked, _LOOK_S)
            answers.begin(learning, watch, sink, self._tags)
            self._manager.ready()
            try:
                learning.train_until_stopped(sink, self._tags)
            finally:
                if owner.loss:
                    raise FolderInUseError(owner.loss)

    def stop(self) -> None:
        """Begin to drain: no new episodes, then a checkpoint and the end. From any thread; a second call does nothing."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._manager.stopping("draining")
            self._metrics.is_stopping = True
            self._safe_point.wake()
            if self._link is not None:
                self._link.drain(is_final=self._is_final)

    def stop_for(self, *, is_final: bool) -> None:
        """Stop as by SIGTERM, and if it `is_final`, have callers told that no server comes back. From any thread; once."""
        with self._told_to_stop_lock:
            if self._told_to_stop or self._stopping.is_set():
                return
            self._told_to_stop = True
        self._is_final = self._is_final or is_final
        os.kill(os.getpid(), signal.SIGTERM)

    def _lose(self, why: str) -> None:
        """End, for another process has the run."""
        if not self._stopping.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    def _interrupt_sample(self) -> None:
        """Have a `sample()` that is under way return."""
        if self._link is not None:
            self._link.order(INTERRUPT)

    @property
    def _tags(self) -> dict[str, str]:
        """Whose the recorded points are."""
        return {"run": self._config.run, "policy": self._config.algorithm.name, "worker": f"server-{os.getpid()}"}

    # --- start ------------------------------------------------------------------------------------------------------------------------

    def _start(
        self,
        ray_process: RayProcess | JoinedRay,
        actors: ActorLink,
        checkpoints: CheckpointFolder,
        answers: AdminAnswers,
        ending: contextlib.ExitStack,
    ) -> Learning:
        begun = time.monotonic()
        config, link = self._config, actors.link
        found = newest_checkpoint(config, checkpoints)
        prepare_store(config)
        self._leave_if_stopped()
        import ray.rllib  # noqa: F401  # it has loggers to adopt before it says the first word

        adopt_ray_loggers()
        from policyserver.server.runner.env_runner import ExternalEnvRunner
        from policyserver.server.runner.traffic_check import check_traffic

        rllib_config = algorithm_config(
            config,
            ExternalEnvRunner,
            driver_link=actors.address,
            log_file=config.log_file.absolute(),
            stop_timeout_s=_longest_stop_s(config),
        )
        if not (config.ray.joins and rllib_config.num_learners):  # else they are on other machines
            check_devices(rllib_config)
        check_net(rllib_config)
        check_traffic(rllib_config)
        self._leave_if_stopped()
        if rllib_config.env is None and not config.ray.joins:
            numbers = reversed(range(max(rllib_config.num_env_runners, 1)))  # the last first: whether there is such a port
            addresses = [address_of(config.listen.address, number) for number in numbers]
            for address in addresses[:-1]:  # the first is claimed already
                ending.enter_context(claimed(address))
            ending.enter_context(reserve_ports(addresses))  # Ray opens ports, too
        ray_process.start(cpu_tickets(rllib_config), before_retry=self._leave_if_stopped)
        if config.ray.joins:
            actors.let_actors_in(ending)
            from policyserver.server.daemon.cluster_room import check_cluster
            from policyserver.server.daemon.predecessor import take_over

            check_cluster(config, rllib_config)  # before anything of a predecessor's is ended
            take_over(config.run_folder)
        # Only now, for Ray forks, which gRPC's threads don't bear.
        admin = AdminServer(answers, ray_process.folder, network_access(config.admin, config.listen))
        ending.callback(admin.close)
        if admin.address:
            logger.info("the admin service listens on %s", admin.address)
        self._handle_signals()  # again: Ray's core, in C++, has put itself before them
        self._leave_if_stopped()
        _share_the_machine(config)
        keep_results_in(ray_process.folder)
        try:
            with placing(config.ray), configured_by_value(config.ray), reaching_each_other(config.ray):
                algorithm = rllib_config.build_algo()
        except Exception as error:
            self._leave_if_stopped()
            logger.exception("the algorithm can't be built")
            raise DaemonError(
                f"the algorithm can't be built, or its serving actor did not start: {last_line(error)}; the log above has all of it"
            ) from error
        ending.callback(self._end_in_time, algorithm.stop, "a serving actor is killed with Ray")
        if config.ray.joins:
            self._actor_health.watch(algorithm)
            keep_state_server_here(algorithm)
            bound_fetches(algorithm.learner_group, config.ray.silent_s)
        share_the_machine(algorithm.learner_group, config.learner)
        keep_in_service(algorithm.learner_group)
        group = algorithm.env_runner_group
        if group.num_healthy_remote_workers() < rllib_config.num_env_runners:
            raise DaemonError("a serving actor did not start; its error is in the log above")
        self._leave_if_stopped()
        health = self._actor_health if config.ray.joins else None
        learning = Learning(config, algorithm, checkpoints, link, self._safe_point, self._stopping, self._metrics, health, self._alarm)
        ending.callback(learning.actors.close)
        learning.restore(found)
        self._leave_if_stopped()
        policies = LoadedPolicies(config.policies, checkpoints, LinkedActors(link))
        load_configured(policies, config.policies, functools.partial(checkpoint_at, config))
        answers.policies = policies
        if config.ray.joins:  # before a client may ask for them
            planned = {address: 0 for each in of_serving(algorithm, lambda runner: runner.addresses_of_all.planned()) for address in each}
            of_serving(algorithm, lambda runner: runner.take_endpoints(planned))
        of_serving(algorithm, lambda runner: runner.open())
        endpoints = [address for served in of_serving(algorithm, lambda runner: runner.addresses()) for address in served]
        if rllib_config.env is None and len(endpoints) < max(rllib_config.num_env_runners, 1):
            raise DaemonError(f"{config.listen.address}: a serving actor could not listen; its error is in the log above")
        logger.info(
            "serving on %s, policy version %d, ready after %.1f s",
            ", ".join(endpoints) or "what the environment opens", learning.progress.weights_seq_no, time.monotonic() - begun,
        )  # fmt: skip
        return learning

    def _leave_if_stopped(self) -> None:
        if self._stopping.is_set():
            raise _StoppedEarlyError

    # --- end --------------------------------------------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        """Let SIGTERM and SIGINT drain, a second one end the process at once, and SIGALRM limit the draining."""

        def on_stop(number: int, _: Any) -> None:
            if self._stopping.is_set():
                if self._second_signal.ends_at_once(number):
                    os._exit(128 + number)
                return
            self._second_signal.note_stop()
            self.stop()
            self._alarm.handle()  # again: Ray's core may have taken the alarm before it let this signal through
            self._alarm.begin(self._config.learner.drain_timeout_s)
            what = "draining" if self._is_ready else "still starting; stops as soon as it can"
            logger.info("%s: %s, after at most %.0f s", signal.Signals(number).name, what, self._config.learner.drain_timeout_s)

        signal.signal(signal.SIGTERM, on_stop)
        signal.signal(signal.SIGINT, on_stop)
        signal.signal(signal.SIGHUP, on_stop)
        self._alarm.handle()

    def _end_in_time(self, end: Callable[[], None], otherwise: str) -> None:
        """End a part, but don't wait for ever where it hangs."""
        self._alarm.begin(_STOP_TIMEOUT_S)
        try:
            end()
        except DrainTimeoutError:
            logger.warning("%s: not ended within %.0f s", otherwise, _STOP_TIMEOUT_S)
        finally:
            self._alarm.end()


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


def _longest_stop_s(config: ServerConfig) -> float:
    """Return how long an orderly stop may take: draining, the checkpoint, the sink, the actors, Ray."""
    return config.learner.drain_timeout_s + _SAVE_S + _SINK_CLOSE_S + _SINK_UNDER_WAY_S + 2 * _STOP_TIMEOUT_S


def _share_the_machine(config: ServerConfig) -> None:
    """Give way to the serving actors. Called after Ray has started, whose processes would inherit it; threads made later do."""
    import torch

    torch.set_num_threads(config.learner.threads)
    lower_priority(config.learner.niceness)
