"""What a server that ends tells its callers."""

from __future__ import annotations

from policyserver.common.errors import ServerEndedError, ServerUnavailableError


def ending_error(*, is_final: bool) -> ServerUnavailableError:
    """Make the error for clients that can't be served any more.

    Args:
        is_final: Nobody comes back by itself, so that waiting is in vain; else a successor is expected.
    """
    if is_final:
        return ServerEndedError("the server is shutting down for good: nobody comes back until somebody starts one here again")
    return ServerUnavailableError("the server is shutting down and starts no new episodes", reason="SHUTTING_DOWN")
