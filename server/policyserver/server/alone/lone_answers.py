"""Answers the admin service for a server without a learner."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NoReturn

import grpc

from policyserver.server.config.server_config import ServerConfig
from policyserver.server.control.admin_errors import AdminError
from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointFolder
from policyserver.server.daemon.serving_answers import ServingAnswers
from policyserver.server.processes.training_report import Progress
from policyserver.v1 import admin_service_pb2 as pb


class LoneAnswers(ServingAnswers):
    """Answers what needs no learner, and refuses the rest. From any thread."""

    def __init__(
        self,
        config: ServerConfig,
        checkpoints: CheckpointFolder,
        checkpoint: Checkpoint,
        stopping: threading.Event,
        *,
        stop: Callable[..., None],
        stop_timeout_s: float,
    ) -> None:
        """Answer for a server that starts, and that is to serve a checkpoint; see `ServingAnswers`."""
        super().__init__(config, checkpoints, stopping, stop=stop, stop_timeout_s=stop_timeout_s)
        self._checkpoint = checkpoint

    @property
    def _progress(self) -> Progress:
        return self._checkpoint.progress

    def status(self, request: pb.StatusRequest) -> pb.StatusResponse:
        """Say how serving is, and what is served."""
        response, checkpoint = super().status(request), self._checkpoint
        response.checkpoint, response.lineage = checkpoint.number, checkpoint.lineage
        if checkpoint.restored_from:
            response.restored_from = checkpoint.restored_from
        return response

    def _refuse(self, request: Any) -> NoReturn:
        raise AdminError(
            "expected a server that learns, received one with learner.enabled = false, which serves checkpoint "
            f"{self._checkpoint.number} as it is: another one is served after a start with --checkpoint",
            grpc.StatusCode.FAILED_PRECONDITION,
        )

    pause_learning = resume_learning = save_checkpoint = pin_checkpoint = roll_back = promote = restart_actors = scale_actors = _refuse
