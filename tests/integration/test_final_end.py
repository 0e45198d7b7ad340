"""The daemon's end as its callers hear it: final where whoever started it is done with it, open where a service manager stops it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.client import ClientConfig, PolicyClient, PolicyServerError
from policyserver.pipelines.demo.server_process import ServerProcess
from tests.conftest import CARTPOLE
from tests.integration.daemon_process import DaemonProcess
from tests.ports import free_address

PATIENT = ClientConfig(action_timeout_s=40.0, connect_timeout_s=40.0, reconnect_backoff_initial_s=0.05, reconnect_backoff_max_s=0.2)
ZEROS = np.zeros(4, np.float32)
READY_S = 200.0
"""Ray takes ten seconds to start, and many times that beside other work."""
AT_ONCE_S = 20.0
"""One that looks for a successor does so for as long as its patience lasts, which is twice that."""

pytestmark = [pytest.mark.timeout(READY_S + 400.0), pytest.mark.alone]


class Caller:
    """Plays one episode on a thread until it is told off; then the name of the error, and when it came."""

    def __init__(self, client: PolicyClient, play: Callable[[PolicyClient], Any]) -> None:
        self.error, self.heard_s = "", 0.0
        self.has_played = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(client, play))
        self._thread.start()

    def _run(self, client: PolicyClient, play: Callable[[PolicyClient], Any]) -> None:
        try:
            while True:
                play(client)
                self.has_played.set()
        except PolicyServerError as error:
            self.error, self.heard_s = type(error).__name__, time.monotonic()

    def join(self) -> None:
        self._thread.join()


def begin(client: PolicyClient) -> None:
    client.end_episode(client.start_episode(), ZEROS)
    time.sleep(0.02)


def played_until_the_end(address: str, stop: Callable[[], Any]) -> tuple[list[Caller], float]:
    """Have one caller go on with its episode and another begin new ones, while the server stops; what they heard, and when it had ended."""
    with PolicyClient(address, config=PATIENT) as client:
        episode = client.start_episode()
        callers = [Caller(client, lambda client: client.get_action(episode, ZEROS)), Caller(client, begin)]
        assert all(caller.has_played.wait(60.0) for caller in callers)
        stop()
        ended_s = time.monotonic()
        for caller in callers:
            caller.join()
    return callers, ended_s


@pytest.mark.slow
def test_callers_of_a_server_whose_starter_is_done_with_it_hear_at_once(tmp_path: Path) -> None:
    address, file = free_address(), tmp_path / "server.toml"
    file.write_text(f'run_folder = "{tmp_path / "run"}"\n{CARTPOLE}\n[listen]\naddress = "{address}"\n')
    ready, died = threading.Event(), threading.Event()
    server = ServerProcess(file, address, tmp_path / "server.out")
    server.start(ready.set, lambda error: died.set())
    assert ready.wait(READY_S), (tmp_path / "server.out").read_text()[-2000:]
    codes: list[int | None] = []
    callers, ended_s = played_until_the_end(address, lambda: codes.append(server.stop()))
    assert codes == [0]
    assert [caller.error for caller in callers] == ["ServerEndedError"] * 2
    assert max(caller.heard_s for caller in callers) - ended_s < AT_ONCE_S
    assert not died.is_set()


@pytest.mark.slow
@pytest.mark.parametrize(("options", "error"), [((), "ServerUnavailableError"), (("--stop_is_final", "true"), "ServerEndedError")])
def test_a_signal_promises_a_successor_unless_the_configuration_says_otherwise(
    tmp_path: Path, options: tuple[str, ...], error: str
) -> None:
    file = tmp_path / "server.toml"
    file.write_text(CARTPOLE)
    with DaemonProcess(tmp_path / "run", free_address(), "--config", str(file), *options) as daemon:
        daemon.wait_ready(READY_S)
        callers, _ = played_until_the_end(daemon.address, lambda: daemon.process.send_signal(signal.SIGTERM))
        assert [caller.error for caller in callers] == [error] * 2
        assert daemon.process.wait(120.0) == 0
