"""Answers the admin service, in the process that learns."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import grpc

from policyserver.server.control.admin_errors import AdminError
from policyserver.v1 import admin_service_pb2 as pb
from policyserver.v1 import admin_service_pb2_grpc as pb_grpc

logger = logging.getLogger(__name__)

SOCKET = "admin.sock"
"""Name of the socket in its folder."""
LOCAL = "local"
"""Who calls over the socket: only the server's own user can."""
_CALLS_AT_ONCE = 8
_GRACE_S = 1.0
_METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["AdminService"].methods]


class Answers(Protocol):
    """What the service asks to be answered: one method for each call, named like it in snake case, takes the request and who sent it."""

    def record_call(self, call: str, who: str, request: str, error: Exception | None) -> None:
        """Log and record a call, and why it was refused if it was."""


class AdminServer:
    """Listens on a unix socket until it is closed."""

    def __init__(self, answers: Answers, folder: Path) -> None:
        """Begin to answer, on a socket in a folder that should be closed to other users.

        Raises:
            OSError: The socket can't be bound.
        """
        self._server = grpc.server(ThreadPoolExecutor(_CALLS_AT_ONCE, "admin"), maximum_concurrent_rpcs=_CALLS_AT_ONCE)
        pb_grpc.add_AdminServiceServicer_to_server(_servicer(answers), self._server)
        path = folder / SOCKET
        try:
            self._server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise OSError(f"{path} could not be bound: {error}") from error
        self._server.start()

    def close(self) -> None:
        """Answer what was asked, for a moment, and stop. A second call does nothing."""
        self._server.stop(_GRACE_S).wait()


def _servicer(answers: Answers) -> Any:
    """Make the servicer: each call is answered by the method of its name."""
    servicer = pb_grpc.AdminServiceServicer()
    for name in _METHODS:
        answer = getattr(answers, "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_"))
        setattr(servicer, name, functools.partial(_answer, answers, name, answer))
    return servicer


def _answer(answers: Answers, name: str, answer: Callable[[Any], Any], request: Any, context: grpc.ServicerContext) -> Any:
    told = " ".join(f"{field.name}={value}" for field, value in request.ListFields())
    failure: Exception | None = None
    try:
        response = answer(request)
    except AdminError as error:
        failure, code, text = error, error.code, str(error)
    except Exception as error:
        logger.exception("the admin call %s failed", name)
        failure, code, text = error, grpc.StatusCode.INTERNAL, f"the server failed to answer; its log has the details: {error!r}"
    if name != "Status":  # which a dashboard may ask each second
        answers.record_call(name, LOCAL, told, failure)
    if failure is not None:
        context.abort(code, text)
    return response
