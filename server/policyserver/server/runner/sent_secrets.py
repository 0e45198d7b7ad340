"""Certificate, key and token that the daemon sends over the link (`ray.send_secrets`)."""

from __future__ import annotations

import threading

from policyserver.server.config.link_address import RemoteAddress
from policyserver.server.grpc_front.listen_security import ListenSecrets

_LONGEST_WAIT_S = 30.0  # an actor whose link is away tries again each second


class SentSecrets:
    """What an actor listens with in place of the configured files. From any thread."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.newest: ListenSecrets | None = None
        self._are_there = threading.Event()

    def take(self, sent: tuple[bytes, bytes, str]) -> None:
        """Take certificate, key and token."""
        self.newest = ListenSecrets(*sent)
        self._are_there.set()

    def wait(self, link: object) -> None:
        """Wait for them, if the daemon at the other end of `link` sends any.

        Raises:
            OSError: It sends none.
        """
        if isinstance(link, RemoteAddress) and link.sends_secrets and not self._are_there.wait(_LONGEST_WAIT_S):
            raise OSError(
                f"expected certificate, key and token from the daemon within {_LONGEST_WAIT_S:g} s (ray.send_secrets), received none"
            )
