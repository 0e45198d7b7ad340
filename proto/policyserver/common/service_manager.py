"""Tells the service manager that started this process how it is: ready, alive, stopping. The protocol is that of sd_notify(3)."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import MutableMapping

logger = logging.getLogger(__name__)

_SOCKET, _WATCHDOG_US, _WATCHDOG_PROCESS = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
_SEND_TIMEOUT_S = 2.0
"""Longest wait for a manager that reads nothing, as while it is replaced by a newer one."""
_MAX_STATUS_BYTES = 512


class ServiceManager:
    """The service manager's end, as its variables name it; where they are missing, each call does nothing. From any thread."""

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Take the variables out of an environment, so that no child process inherits them; by default the process's own."""
        environment = os.environ if environment is None else environment
        named = environment.pop(_SOCKET, "")
        limit_us, process = environment.pop(_WATCHDOG_US, ""), environment.pop(_WATCHDOG_PROCESS, "")
        self._address = f"\0{named[1:]}" if named.startswith("@") else named
        if named and not named.startswith(("/", "@")):
            logger.warning("%s: expected /PATH or @NAME, received %r; the service manager is told nothing", _SOCKET, named)
            self._address = ""
        is_ours = bool(self._address) and process in ("", str(os.getpid()))
        self.watchdog_s = int(limit_us) / 1e6 if is_ours and limit_us.isascii() and limit_us.isdigit() and int(limit_us) else None
        """Seconds without `alive` after which the manager kills the process; None where it does not."""
        self._status = ""
        self._failed = False

    def ready(self) -> None:
        """Say that the service serves."""
        self._send("READY=1")

    def stopping(self, status: str) -> None:
        """Say that the service ends."""
        self._send("STOPPING=1", f"STATUS={_line(status)}")

    def alive(self) -> None:
        """Say that the service works; due well within `watchdog_s` of the time before."""
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Describe the service in one line, if that has changed."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={_line(text)}")

    def _send(self, *assignments: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_TIMEOUT_S)
                sender.sendto("\n".join(assignments).encode(), self._address)
            self._failed = False
        except OSError as error:
            with contextlib.suppress(Exception):
                logger.log(logging.DEBUG if self._failed else logging.WARNING, "the service manager could not be told: %s", error)
            self._failed = True


def _line(text: str) -> str:
    """Return a text as one line of bounded length."""
    return " ".join(text.split()).encode()[:_MAX_STATUS_BYTES].decode(errors="ignore")
