"""Where the admin service listens beside its private socket."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from policyserver.common.endpoints import parse_address
from policyserver.common.settings import Config


@dataclass(frozen=True)
class AdminConfig(Config):
    """An address over which other machines may steer the server. Without one, only its own user can, over a socket in a private folder."""

    address: str | None = None
    """HOST:PORT. With it the three files must be given, on loopback too, for a port knows no user. Unset: the private socket alone."""
    tls_certificate_file: Path | None = None
    """PEM file with the certificate chain of this address."""
    tls_key_file: Path | None = None
    """PEM file with the certificate's private key."""
    token_file: Path | None = None
    """File with the secret that every caller must send, readable by its owner alone. Not that of `listen`, for clients may not steer. Its
    name says in the log and in the record who called."""

    def _check(self) -> None:
        if self.address is not None and parse_address(self.address).startswith("unix:"):
            raise ValueError(f"address: expected HOST:PORT, for the service has a unix socket already, received {self.address!r}")
