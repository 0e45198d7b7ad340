"""When the service manager is told that the server is alive."""

from __future__ import annotations

import socket
from pathlib import Path

from policyserver.common.service_manager import ServiceManager
from policyserver.server.daemon.signs_of_life import SignsOfLife


def test_answers_or_the_main_thread_are_a_sign_of_life_and_a_standstill_is_not(tmp_path: Path) -> None:
    passes = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.setblocking(False)

        def told(answered: int) -> list[bytes]:
            signs.look(answered)
            heard = []
            try:
                while True:
                    heard.append(listening.recv(4096))
            except BlockingIOError:
                return heard

        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "s"), "WATCHDOG_USEC": "60000000"})
        signs = SignsOfLife(manager, lambda: passes, lambda: f"iteration {passes}")
        assert told(2) == [b"WATCHDOG=1", b"STATUS=2 serving, iteration 0"]
        assert told(2) == [b"WATCHDOG=1"]
        assert told(0) == [b"STATUS=0 serving, iteration 0"]
        assert told(0) == []
        passes = 1
        assert told(0) == [b"WATCHDOG=1", b"STATUS=0 serving, iteration 1"]
        assert told(0) == []
