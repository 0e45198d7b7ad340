"""Where the page listens, and who may see it: every user of this machine, and from elsewhere, over TLS, users with the token."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from policyserver.common.certificates import check_certificate
from policyserver.common.endpoints import parse_address
from policyserver.common.listening import check_protection, read_token
from policyserver.common.settings import Config

LOOPBACK_NAMES = ["127.0.0.1", "localhost", "[::1]"]
"""Hosts that a request to a loopback address may name: else a foreign page whose name resolves to 127.0.0.1 could read this one."""


def check_page_address(key: str, address: str) -> None:
    """Refuse what is no HOST:PORT with a ValueError that names `key`."""
    try:
        target = parse_address(address)
    except ValueError:
        target = ""
    if not target or target.startswith("unix:"):
        raise ValueError(f"{key}: expected HOST:PORT such as 127.0.0.1:9980, with a port of at most 65535, received {address!r}")


@dataclass(frozen=True)
class PageConfig(Config):
    """Where the page listens, and what protects it."""

    address: str = "127.0.0.1:9980"
    """HOST:PORT; port 0 lets the system choose."""
    tls_certificate_file: Path | None = None
    """PEM file with the page's certificate chain. Required unless the address is loopback."""
    tls_key_file: Path | None = None
    """PEM file with the certificate's private key."""
    token_file: Path | None = None
    """File with the secret that viewers give as their password, readable by its owner alone. Required unless the address is loopback."""

    def _check(self) -> None:
        check_page_address("address", self.address)

    def token(self, key: str = "address", prefix: str = "") -> str | None:
        """Check that strangers are kept out, and read the token; None without a token.

        Args:
            key: Name of the address's setting in errors.
            prefix: What the names of the other settings begin with in errors.

        Raises:
            InsecureListenError: TLS or the token is missing beyond the loopback, or certificate, key or token can't be used.
        """
        files = {f"{prefix}{name}": getattr(self, name) for name in ("tls_certificate_file", "tls_key_file", "token_file")}
        check_protection(key, self.address, files, "a loopback address")
        if self.tls_certificate_file is not None:
            check_certificate(self.tls_certificate_file, self.tls_key_file or self.tls_certificate_file, prefix)
        return read_token(self.token_file, f"{prefix}token_file") if self.token_file is not None else None

    def bind(self, key: str = "address") -> socket.socket:
        """Take the address; OSError that names `key` if it can't be taken, in most cases because another process has it."""
        host, _, port = parse_address(self.address).rpartition(":")
        host = host.strip("[]")
        try:
            return socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror
            text = f"{key}: {self.address} can't be taken: {reason}; stop the process that has it or choose another address"
            raise OSError(error.errno, text) from error
