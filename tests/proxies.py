"""A proxy that the environment names, and that nobody is to ask."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

import pytest


class NamedProxy:
    """A port of this machine that takes connections, remembers what they send first, and never answers."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in self._open:
            connection.close()

    def put_into_environment(self, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        """Let the environment send calls here: `http` or `https` for all, `address` for those to loopback addresses."""
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        if kind == "address":
            monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY", self.address)
            monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES", "127.0.0.0/8")
        else:
            monkeypatch.setenv(f"{kind}_proxy", f"http://{self.address}")

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            connection.settimeout(30.0)
            said = b""
            with suppress(OSError):  # it says nothing, or is gone: it has asked all the same
                said = connection.recv(4096)
            self.asked.append(said)
