"""A demo talks to the server that it has started, gives it the time to stop that it needs, and ends as its ledgers say."""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from policyserver.pipelines.__main__ import main
from policyserver.pipelines.demo.server_process import ServerProcess
from tests.client.reference_server import ReferenceServer
from tests.ports import free_address
from tests.streams import Streams

WAIT_S = 60.0

pytestmark = [pytest.mark.timeout(180), pytest.mark.process]


@pytest.fixture(autouse=True)
def _switch_interval() -> Iterator[None]:
    """Undo what the command does to its process, which here is the tests'."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def reference_daemon(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let demos start the reference server in place of `policy-server serve`."""

    def use(*, stop_s: float = 0.0, reward_error: float = 0.0) -> None:
        made = ServerProcess.__init__

        def make(process: Any, config_file: Path, address: str, log_file: Path) -> None:
            made(process, config_file, address, log_file)
            own = [address, getattr(process, "instance_id", ""), str(stop_s), str(reward_error)]
            process._command = [sys.executable, "-m", "tests.pipelines.reference_daemon", *own]

        monkeypatch.setattr(ServerProcess, "__init__", make)

    return use


def demo(runs: Path) -> int:
    return main(["demo", "--steps", "400", "--episodes", "4", "--runs", str(runs)])


def test_a_demo_whose_ledgers_agree_ends_with_0(reference_daemon: Callable[..., None], tmp_path: Path) -> None:
    reference_daemon()
    assert demo(tmp_path) == 0


def test_ledgers_that_disagree_for_no_reason_are_an_error(
    reference_daemon: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference_daemon(reward_error=0.5)
    assert demo(tmp_path) == 1
    said = capsys.readouterr()
    assert "policy-pipeline: the ledgers differ, although no server died and no episode was lost: rewards client " in said.err
    assert "reward ledgers" in said.out, "the summary comes all the same"
    assert list(tmp_path.glob("*/summary.json"))


def test_a_demo_lets_its_server_stop_for_as_long_as_that_says(reference_daemon: Callable[..., None], tmp_path: Path) -> None:
    reference_daemon(stop_s=7.0)
    assert demo(tmp_path) == 0
    (log,) = tmp_path.glob("*/server.out")
    assert log.read_text().splitlines()[-1:] == ["stopped"], "it was killed before"


@pytest.mark.parametrize("number", [None, 2, 3])
def test_a_server_is_seen_to_serve_and_no_object_of_a_stream_is_left(
    tmp_path: Path, streams: Streams, fail_start: Callable[[int, str], list[int]], number: int | None
) -> None:
    """Also where a thread can't be started: the one of gRPC's, after two that were tried, or the client's that asks who it is."""
    said: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with ReferenceServer() as server:
        process = ServerProcess(tmp_path / "none.toml", server.address, tmp_path / "log")
        process._command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        server.servicer.identity = {"instance_id": process.instance_id}
        seen = [] if number is None else fail_start(number, "server-health")
        process.start(on_serving=lambda: said.put("serving"), on_death=said.put)
        assert said.get(timeout=WAIT_S) == "serving"
        assert number is None or len(seen) > number
        assert process.stop() == 0
        assert (streams.begun >= 2, streams.left) == (True, 0)


def test_another_server_on_the_address_is_not_taken_for_the_one_that_was_started(tmp_path: Path) -> None:
    said: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with ReferenceServer(socket=free_address()) as stranger:
        process = ServerProcess(tmp_path / "none.toml", stranger.address, tmp_path / "log")
        process._command = [sys.executable, "-c", "import time; time.sleep(3); raise SystemExit(9)"]
        process.start(on_serving=lambda: said.put("serving"), on_death=said.put)
        first = said.get(timeout=WAIT_S)
        process._stopping = True
        process._watcher.join()
        process._health.join()
    assert first != "serving"
    assert "ended with status 9 before it was ready" in str(first)
