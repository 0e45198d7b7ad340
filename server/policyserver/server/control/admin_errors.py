"""Why a call of the admin service is refused."""

from __future__ import annotations

import grpc


class AdminError(Exception):
    """A call of the admin service that is refused. The text says what was expected, what was received, and what to do."""

    def __init__(self, message: str, code: grpc.StatusCode) -> None:
        super().__init__(message)
        self.code = code


def draining_error() -> AdminError:
    """Make the error for what a server does no more."""
    return AdminError("expected a server that serves, received one that drains: ask its successor", grpc.StatusCode.UNAVAILABLE)


def starting_error() -> AdminError:
    """Make the error for what a server can't do yet."""
    text = "expected a server that serves, received one that is still starting: `policy-server ctl wait-ready` waits for it"
    return AdminError(text, grpc.StatusCode.FAILED_PRECONDITION)
