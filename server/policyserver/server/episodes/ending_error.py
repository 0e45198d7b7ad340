"""What clients are told by a server that ends, or that is cut off from its daemon."""

from __future__ import annotations

from policyserver.common.errors import ServerEndedError, ServerUnavailableError


def ending_error(*, is_final: bool) -> ServerUnavailableError:
    """Make the error for clients that can't be served any more: if it `is_final`, waiting is in vain, else a successor is expected."""
    if is_final:
        return ServerEndedError("the server is shutting down for good: it does not come back by itself")
    return ServerUnavailableError("the server is shutting down and starts no new episodes", reason="SHUTTING_DOWN")


def silence_error() -> ServerUnavailableError:
    """Make the error for clients that would begin an episode where the daemon has been silent for too long."""
    text = (
        "this serving process has not heard of its daemon for longer than ray.partition_grace_s: it starts no new episodes until it does; "
        "start them on another one, or wait"
    )
    return ServerUnavailableError(text, reason="SHUTTING_DOWN")
