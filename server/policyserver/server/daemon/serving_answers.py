"""Answers what the admin service asks of any server: how it is, which checkpoints there are, what it logs, and that it ends."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import grpc

from policyserver.monitoring.reports import control_point
from policyserver.monitoring.sink import Sink
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.control.admin_errors import AdminError, draining_error, starting_error
from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointError, CheckpointFolder, CheckpointUnknownError
from policyserver.server.daemon.known_actors import KnownActors
from policyserver.server.daemon.loaded_policies import LoadedPolicies, LoadedPolicy, PolicyError, PolicyLimitError, PolicyMissingError
from policyserver.server.daemon.serving_watch import ServingWatch
from policyserver.server.processes.training_report import Progress
from policyserver.v1 import admin_service_pb2 as pb

logger = logging.getLogger(__name__)

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class ServingAnswers(ABC):
    """Answers the calls of the admin service that need no learner. From any thread."""

    def __init__(
        self,
        config: ServerConfig,
        checkpoints: CheckpointFolder,
        stopping: threading.Event,
        *,
        stop: Callable[..., None],
        stop_timeout_s: float,
    ) -> None:
        """Answer for a server that starts; `stop` begins its end, which takes at most `stop_timeout_s`."""
        self._config = config
        self._checkpoints = checkpoints
        self._stopping = stopping
        self._stop = stop
        self._stop_timeout_s = stop_timeout_s
        self._began_s = time.monotonic()
        self._watch: ServingWatch | None = None
        self._sink: Sink | None = None
        self._tags: Mapping[str, str] = {}
        self.known_actors = KnownActors()
        """What each serving actor answered last; takes each answer from what asks them."""
        self.policies: LoadedPolicies | None = None
        """The further policies; None before it serves."""

    def serves(self, watch: ServingWatch, sink: Sink, tags: Mapping[str, str]) -> None:
        """Note that the server serves: what says how that goes, and where calls are recorded."""
        self._sink, self._tags = sink, tags
        self._watch = watch

    @property
    @abstractmethod
    def _progress(self) -> Progress:
        """How far the run has come. Asked once it serves."""

    @property
    def _actor_numbers(self) -> Sequence[int]:
        """Numbers of the serving processes that there should be; none before that is known."""
        return (0,)

    @property
    def _actors_silent(self) -> Collection[int]:
        """Numbers of those on other machines of which nothing is heard."""
        return ()

    def record_call(self, call: str, who: str, request: str, error: Exception | None) -> None:
        """Log and record a call, and why it was refused if it was."""
        if error is None:
            logger.info("%s by %s%s", call, who, f": {request}" if request else "")
        else:
            logger.warning("%s by %s%s was refused: %s", call, who, f": {request}" if request else "", error)
        if self._watch is not None and self._sink is not None:
            refusal = str(error) if error is not None else None
            self._sink.write(control_point(self._tags, call, who, request, refusal, self._progress.weights_seq_no))

    def status(self, _: pb.StatusRequest) -> pb.StatusResponse:
        """Say how serving is, and how far the run has come."""
        config, watch, numbers, silent = self._config, self._watch, self._actor_numbers, self._actors_silent
        response = pb.StatusResponse(
            state=self._state,
            learning=pb.LEARNING_STATE_ABSENT,
            run=config.run,
            instance_id=config.instance_id or "",
            server_version=importlib.metadata.version("rllib-policy-server"),
            process_id=os.getpid(),
            uptime_s=time.monotonic() - self._began_s,
            actors_expected=max(len(numbers), 1),
            actors_silent=silent,
            serving_actors=self.known_actors.told(numbers, silent),
            log_level=logging.getLevelName(logging.getLogger().level),
        )
        response.policies.extend(map(_policy_info, self.policies.all() if self.policies is not None else ()))
        if watch is None:
            return response
        progress = self._progress
        response.iteration, response.steps_total = progress.iteration, progress.steps_total
        response.learner_updates, response.weights_seq_no = progress.learner_updates, progress.weights_seq_no
        known = pb.ActorStatus.DESCRIPTOR.fields_by_name
        response.actors.extend(
            pb.ActorStatus(**{name: value for name, value in counters.items() if name in known}) for counters in watch.newest
        )
        return response

    def list_checkpoints(self, _: pb.ListCheckpointsRequest) -> pb.ListCheckpointsResponse:
        """List the checkpoints that are there."""
        return pb.ListCheckpointsResponse(checkpoints=[info_of(checkpoint) for checkpoint in self._checkpoints.all()])

    def load_policy(self, request: pb.LoadPolicyRequest) -> pb.LoadPolicyResponse:
        """Serve a checkpoint beside the policy that learns."""
        name = request.name or f"checkpoint-{request.number}"
        with telling_errors():
            return pb.LoadPolicyResponse(policy=_policy_info(self._further_policies().load(name, request.number)))

    def drop_policy(self, request: pb.DropPolicyRequest) -> pb.DropPolicyResponse:
        """Begin no new episodes with one."""
        policies = self._further_policies()
        was_loaded = policies.drop(request.name)
        return pb.DropPolicyResponse(was_loaded=was_loaded, loaded=[loaded.name for loaded in policies.all()])

    def _further_policies(self) -> LoadedPolicies:
        """Return what holds them.

        Raises:
            AdminError: The server starts or drains.
        """
        if self._stopping.is_set():
            raise draining_error()
        if self.policies is None:
            raise starting_error()
        return self.policies

    def drain(self, request: pb.DrainRequest) -> pb.DrainResponse:
        """Begin the server's end, as SIGTERM does; a second time it does nothing."""
        self._stop(is_final=request.final)
        return pb.DrainResponse(stop_timeout_s=self._stop_timeout_s)

    def set_log_level(self, request: pb.SetLogLevelRequest) -> pb.SetLogLevelResponse:
        """Log from another severity on, in this process."""
        if request.level not in _LEVELS:
            text = f"level: expected one of {', '.join(_LEVELS)}, received {request.level!r}"
            raise AdminError(text, grpc.StatusCode.INVALID_ARGUMENT)
        root = logging.getLogger()
        before = logging.getLevelName(root.level)
        root.setLevel(request.level)
        return pb.SetLogLevelResponse(before=before)

    @property
    def _state(self) -> pb.ServerState:
        if self._stopping.is_set():
            return pb.SERVER_STATE_DRAINING
        return pb.SERVER_STATE_STARTING if self._watch is None else pb.SERVER_STATE_SERVING


@contextlib.contextmanager
def telling_errors() -> Iterator[None]:
    """Turn the errors of checkpoints and policies into those of the service."""
    try:
        yield
    except (CheckpointError, PolicyError) as error:
        raise AdminError(str(error), _code_of(error)) from error


def _code_of(error: CheckpointError | PolicyError) -> grpc.StatusCode:
    if isinstance(error, CheckpointUnknownError | PolicyMissingError):
        return grpc.StatusCode.NOT_FOUND
    is_full = isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return grpc.StatusCode.RESOURCE_EXHAUSTED if is_full or isinstance(error, PolicyLimitError) else grpc.StatusCode.FAILED_PRECONDITION


def _policy_info(loaded: LoadedPolicy) -> pb.PolicyInfo:
    return pb.PolicyInfo(name=loaded.name, checkpoint=info_of(loaded.checkpoint), bytes=loaded.size_bytes)


def info_of(checkpoint: Checkpoint) -> pb.CheckpointInfo:
    """Describe a checkpoint."""
    progress = checkpoint.progress
    return pb.CheckpointInfo(
        number=checkpoint.number,
        path=str(checkpoint.path),
        written_at=checkpoint.written_at,
        bytes=checkpoint.size_bytes,
        iteration=progress.iteration,
        steps_total=progress.steps_total,
        weights_seq_no=progress.weights_seq_no,
        weights_sha256=checkpoint.weights_sha256,
        pinned=checkpoint.is_pinned,
        lineage=checkpoint.lineage,
        restored_from=checkpoint.restored_from or None,
    )
