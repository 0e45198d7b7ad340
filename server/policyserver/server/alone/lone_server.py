"""Serves a checkpoint as it is: the env runner in this process, no Ray, no learner."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from policyserver.common.service_manager import ServiceManager
from policyserver.common.settings import SettingsError
from policyserver.server.alone.evaluation import Evaluation
from policyserver.server.alone.lone_answers import LoneAnswers
from policyserver.server.config.algorithm import algorithm_config, naming_setting
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.control.admin_security import network_access
from policyserver.server.control.admin_server import AdminServer
from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointError
from policyserver.server.daemon.daemon_metrics import DaemonMetrics
from policyserver.server.daemon.folder_lock import FolderInUseError
from policyserver.server.daemon.folder_owner import ClaimLeftError, FolderOwner
from policyserver.server.daemon.loaded_policies import LoadedPolicies, load_configured
from policyserver.server.daemon.preflight import check, checkpoint_at, checkpoint_folder, make_folder, prepare_store
from policyserver.server.daemon.private_folder import PrivateFolder
from policyserver.server.daemon.second_signal import SecondSignal
from policyserver.server.daemon.serving_watch import ServingWatch
from policyserver.server.daemon.signs_of_life import SignsOfLife
from policyserver.server.daemon.web_servers import serve_metrics, take_page_address
from policyserver.server.grpc_front.listen_address import claimed
from policyserver.server.processes.serving_report import ServingReport
from policyserver.server.processes.training_report import restored_report

logger = logging.getLogger(__name__)

_SINK_CLOSE_S = 2.0
"""Longest end of recording; what InfluxDB has not taken by then waits on disk for the next server."""
_SINK_UNDER_WAY_S = 7.0
"""Time reckoned for what recording has under way then: a request to InfluxDB takes 5 s at most, unless that is set otherwise."""
_STOP_S = 8.0 + _SINK_CLOSE_S + _SINK_UNDER_WAY_S
"""Longest orderly stop: the calls in flight, the last report, the recording."""


class LoneServer:
    """One server that learns nothing, from start to end."""

    def __init__(self, config: ServerConfig, checkpoint: Path | None, evaluation: Evaluation | None = None) -> None:
        """Take the configuration; nothing starts before `run`.

        Args:
            config: The configuration.
            checkpoint: Folder of the checkpoint to serve; None serves the newest of the run folder.
            evaluation: Ends the server once its episodes have ended; None serves any number.
        """
        self._evaluation = evaluation
        self._config = config.with_instance_id()
        self._path = checkpoint
        self._stopping = threading.Event()
        self._second_signal = SecondSignal()
        self._manager = ServiceManager()
        self._is_final = config.stop_is_final
        store = config.store_file if config.recording.enabled else None
        self._metrics = DaemonMetrics(config.run_folder, store, learns=lambda: False)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Call it in the main thread.

        Raises:
            InsecureListenError: If strangers could get in, or a certificate, a key or a token can't be used.
            SettingsError: If a setting, a file or a folder can't be used, or the checkpoint is another configuration's.
            AddressInUseError: If another process listens on the address, or another server has claimed it.
            OSError: If the live page's address can't be taken.
            FolderInUseError: If another server has the run folder, or takes it because this one was cut off from it.
            CheckpointError: If the checkpoint doesn't fit the configured net.
        """
        begun_s, config = time.monotonic(), self._config
        if config.algorithm.environment.get("env") is not None:
            raise SettingsError("algorithm.environment.env", "", "expected none without a learner, for clients bring their episodes")
        open_sink = check(config)
        with contextlib.ExitStack() as ending:
            ending.enter_context(claimed(config.listen.address))
            if config.admin.address is not None:
                ending.enter_context(claimed(config.admin.address))
            page = take_page_address(config, ending)
            serve_metrics(config, self._metrics, ending)
            ending.enter_context(self._handling_signals())
            make_folder(config.run_folder, "run_folder")
            try:
                owner = FolderOwner(config.run_folder, lambda why: self._stopping.set(), self._stopping.wait)
            except ClaimLeftError:
                return
            ending.callback(owner.release)
            checkpoint = find(config, self._path)
            prepare_store(config)
            folder = PrivateFolder(config.run_folder / "ray")
            ending.callback(folder.remove)
            checkpoints = checkpoint_folder(config, claim=False, folder=checkpoint.path.parent)
            answers = LoneAnswers(config, checkpoints, checkpoint, self._stopping, stop=self.stop_for, stop_timeout_s=_STOP_S)
            admin = AdminServer(answers, folder.path, network_access(config.admin, config.listen))
            ending.callback(admin.close)
            if admin.address:
                logger.info("the admin service listens on %s", admin.address)
            runner = _make_runner(config, checkpoint)
            ending.callback(runner.stop)
            policies = LoadedPolicies(config.policies, checkpoints, _OneProcess(runner))
            load_configured(policies, config.policies, functools.partial(checkpoint_at, config))
            if (evaluation := self._evaluation) is not None:
                runner.limit_starts(evaluation.wanted)
                evaluation.on_end = functools.partial(self.stop_for, is_final=True)
            runner.open()
            sink = open_sink()
            ending.callback(sink.close, _SINK_CLOSE_S)
            if page is not None:
                page.start(config.store_file, self._metrics.routes())
                logger.info("live page at %s", page.address)
            self._metrics.records_to(sink)
            tags = {"run": config.run, "policy": config.algorithm.name, "worker": f"server-{os.getpid()}"}

            def on_report(report: ServingReport) -> None:
                answers.known_actors.note(report)
                self._note(report)

            watch = ServingWatch(lambda *_: [runner.report()], sink, tags, on_report, SignsOfLife(self._manager).look)
            ending.callback(watch.close)
            answers.serves(watch, sink, tags)
            answers.policies = policies
            logger.info(
                "serving %s on %s without a learner, policy version %d, ready after %.1f s",
                checkpoint.path, ", ".join(runner.addresses()), checkpoint.progress.weights_seq_no, time.monotonic() - begun_s,
            )  # fmt: skip
            self._manager.ready()
            self._stopping.wait()
            self._manager.stopping("stopping")
            self._metrics.is_stopping = True
            runner.drain(is_final=self._is_final)
            if owner.loss:
                raise FolderInUseError(owner.loss)

    def stop_for(self, *, is_final: bool) -> None:
        """Stop as by SIGTERM, and if it `is_final`, have callers told that no server comes back. From any thread."""
        self._is_final = self._is_final or is_final
        self._second_signal.note_stop()
        self._stopping.set()

    def _note(self, report: ServingReport) -> None:
        self._metrics.serving(report)
        if self._evaluation is not None:
            self._evaluation.take(report)

    @contextlib.contextmanager
    def _handling_signals(self) -> Iterator[None]:
        """Let SIGTERM, SIGINT and SIGHUP stop the server, and a second one end the process at once."""

        def on_stop(number: int, _: Any) -> None:
            if self._stopping.is_set():
                if self._second_signal.ends_at_once(number):
                    os._exit(128 + number)
                return
            self._second_signal.note_stop()
            logger.info("%s: stopping", signal.Signals(number).name)
            self._stopping.set()

        before = {number: signal.signal(number, on_stop) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _OneProcess:
    """This process, as `LoadedPolicies` knows serving processes."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def hold(self, name: str, state: Mapping[str, Any], everything: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Hold a policy; return why not, if not."""
        failure = self._runner.hold_policy((name, state))
        return [failure] if failure else []

    def drop(self, name: str, everything: Mapping[str, Mapping[str, Any]]) -> None:
        """Begin no new episodes with it."""
        self._runner.drop_policy(name)


def find(config: ServerConfig, path: Path | None) -> Checkpoint:
    """Find a checkpoint by its folder, or the newest whole one of the configuration.

    Raises:
        SettingsError: There is no such checkpoint, or it can't be used.
    """
    with naming_setting("checkpoint", CheckpointError):
        if path is None:
            found = checkpoint_folder(config, claim=False).newest_whole()
            if found is None:
                raise CheckpointError(
                    f"expected a whole checkpoint in {config.checkpoints_folder}, received none; name one by --checkpoint"
                )
            return found
        return checkpoint_at(config, path)


def _make_runner(config: ServerConfig, checkpoint: Checkpoint) -> Any:
    """Make the env runner, which serves what the checkpoint has once it is opened."""
    import torch
    from ray.rllib.core import COMPONENT_RL_MODULE
    from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME, WEIGHTS_SEQ_NO

    from policyserver.server.export.trained_policy import load_parts
    from policyserver.server.processes.log_setup import adopt_ray_loggers
    from policyserver.server.runner.env_runner import ExternalEnvRunner

    adopt_ray_loggers()
    torch.set_num_threads(1)  # as in a serving actor
    built = algorithm_config(config, ExternalEnvRunner).copy(copy_frozen=False)
    built.env_runners(num_env_runners=0)
    runner = ExternalEnvRunner(config=built, worker_index=0, num_workers=0)
    load_parts(checkpoint, runner.module, runner._env_to_module, runner._module_to_env)
    progress = checkpoint.progress
    runner.set_state(
        {
            COMPONENT_RL_MODULE: runner.module.get_state(),
            WEIGHTS_SEQ_NO: progress.weights_seq_no,
            NUM_ENV_STEPS_SAMPLED_LIFETIME: progress.steps_total,
        }
    )
    runner.report_training(restored_report(progress, checkpoint.path))
    return runner
