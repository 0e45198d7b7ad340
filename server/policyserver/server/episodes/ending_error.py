"""What clients are told by a server that ends."""

from __future__ import annotations

from policyserver.common.errors import ServerEndedError, ServerUnavailableError


def ending_error(*, is_final: bool) -> ServerUnavailableError:
    """Make the error for clients that can't be served any more: if it `is_final`, waiting is in vain, else a successor is expected."""
    if is_final:
        return ServerEndedError("the server is shutting down for good: it does not come back by itself")
    return ServerUnavailableError("the server is shutting down and starts no new episodes", reason="SHUTTING_DOWN")
