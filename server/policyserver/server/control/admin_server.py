"""Answers the admin service, in the process that learns."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import grpc

from policyserver.common.endpoints import parse_address
from policyserver.server.control.admin_errors import AdminError
from policyserver.server.control.admin_security import NetworkAccess
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
    """Listens on a unix socket, and on an address if there is one, until it is closed."""

    def __init__(self, answers: Answers, folder: Path, access: NetworkAccess | None = None) -> None:
        """Begin to answer, on a socket in a folder that should be closed to other users.

        Raises:
            OSError: The socket or the address can't be bound.
        """
        self._server = grpc.server(ThreadPoolExecutor(_CALLS_AT_ONCE, "admin"), maximum_concurrent_rpcs=_CALLS_AT_ONCE)
        pb_grpc.add_AdminServiceServicer_to_server(_servicer(answers, access), self._server)
        path = folder / SOCKET
        try:
            self._server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise OSError(f"{path} could not be bound: {error}") from error
        self.address = ""
        """HOST:PORT, with the port that the system chose if it was 0; empty without an address."""
        if access is not None:
            self.address = self._listen(access)
        self._server.start()

    def _listen(self, access: NetworkAccess) -> str:
        target = parse_address(access.address)
        try:
            port = self._server.add_secure_port(target, access.credentials)
        except RuntimeError as error:
            raise OSError(f"admin.address: {access.address} could not be bound: {error}") from error
        return f"{target.rpartition(':')[0]}:{port}"

    def close(self) -> None:
        """Answer what was asked, for a moment, and stop. A second call does nothing."""
        self._server.stop(_GRACE_S).wait()


def _servicer(answers: Answers, access: NetworkAccess | None) -> Any:
    """Make the servicer: each call is answered by the method of its name."""
    servicer = pb_grpc.AdminServiceServicer()
    for name in _METHODS:
        answer = getattr(answers, "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_"))
        setattr(servicer, name, functools.partial(_answer, answers, access, name, answer))
    return servicer


def _answer(
    answers: Answers, access: NetworkAccess | None, name: str, answer: Callable[[Any], Any], request: Any, context: grpc.ServicerContext
) -> Any:
    told = " ".join(f"{field.name}={value}" for field, value in request.ListFields())
    failure: Exception | None = None
    is_local = context.peer().startswith("unix:")
    who = LOCAL if is_local else ""
    try:
        if not is_local:
            who = _name_of(context, access)
        response = answer(request)
    except AdminError as error:
        failure, code, text = error, error.code, str(error)
    except Exception as error:
        logger.exception("the admin call %s failed", name)
        failure, code, text = error, grpc.StatusCode.INTERNAL, f"the server failed to answer; its log has the details: {error!r}"
    if name != "Status" or failure is not None:  # which a dashboard may ask each second
        answers.record_call(name, who or context.peer(), told, failure)
    if failure is not None:
        context.abort(code, text)
    return response if is_local else _without_paths(response)


def _name_of(context: grpc.ServicerContext, access: NetworkAccess | None) -> str:
    """Return who calls over the network.

    Raises:
        AdminError: The caller has no token, or another one.
    """
    metadata = {str(key): value for key, value in context.invocation_metadata()}
    if access is not None and access.has_token(metadata):
        return access.name
    received = "another one" if "authorization" in metadata else "none"
    raise AdminError(
        f"expected metadata `authorization: Bearer TOKEN` with the token of admin.token_file, received {received}: a client's token does "
        "not steer",
        grpc.StatusCode.UNAUTHENTICATED,
    )


def _without_paths(response: Any) -> Any:
    """Leave out where checkpoints lie on this machine: over the network they have numbers."""
    for field, value in response.ListFields():
        if field.message_type is pb.CheckpointInfo.DESCRIPTOR or field.message_type is pb.PolicyInfo.DESCRIPTOR:
            for each in value if hasattr(value, "extend") else [value]:
                checkpoint = getattr(each, "checkpoint", each)
                checkpoint.path = ""
    return response
