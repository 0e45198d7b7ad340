"""Who may talk to a server: in plaintext this machine alone, everyone else by TLS and with a token."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from policyserver.common.endpoints import is_local, parse_address, strays


class InsecureListenError(ValueError):
    """The configuration would let anyone on the network in."""


def check_protection(key: str, address: str, files: Mapping[str, Path | None], local: str = "a loopback address or unix:PATH") -> None:
    """Refuse an address beyond this machine without TLS and a token.

    Args:
        key: The address's setting, for the error.
        address: Where the server is to listen.
        files: The settings that protect it beyond this machine: certificate chain, its key, and token.
        local: What needs none of them, for the error.

    Raises:
        InsecureListenError: Names the settings that are missing.
        ValueError: If it is not an address.
    """
    missing = [name for name, file in files.items() if file is None]
    target = parse_address(address)
    if missing and (not is_local(target) or strays(target)):
        raise InsecureListenError(
            f"{key}: {address} can be reached from other machines, so {' and '.join(missing)} must be given; without them only {local} "
            "is allowed"
        )


def read_token(path: Path, key: str) -> str:
    """Read the token that clients must send.

    Raises:
        InsecureListenError: If the file can't be read, holds less than 16 characters, or others than its owner can read it.
    """
    text = read_secret(path, key).decode("ascii", "replace").strip()
    if len(text) < 16 or not text.isprintable() or "\ufffd" in text:
        raise InsecureListenError(f"{key}: expected at least 16 printable ASCII characters in {path}")
    return text


def read_secret(path: Path, key: str) -> bytes:
    """Read a file that its owner alone may read.

    Raises:
        InsecureListenError: If it can't be read, or others can read it too.
    """
    content = read_file(path, key)
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & (stat.S_IRWXO if _is_credential(path) else stat.S_IRWXG | stat.S_IRWXO):
        raise InsecureListenError(f"{key}: expected a file that its owner alone can read (mode 600), received mode {mode:o} on {path}")
    return content


def _is_credential(path: Path) -> bool:
    """Whether the service manager made this file for this service alone: by an access list, whose mask stands where the group's bits do."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return os.path.isabs(folder) and path.resolve().parent == Path(folder).resolve()


def read_file(path: Path, key: str) -> bytes:
    """Read a file of which a setting is the path.

    Raises:
        InsecureListenError: If it can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InsecureListenError(f"{key}: expected a readable file, received {path}: {error.strerror}") from error
