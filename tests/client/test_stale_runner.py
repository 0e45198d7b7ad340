"""A runner that has not heard of its daemon marks its answers: a client tells, and begins episodes elsewhere until that is over."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import pytest

from policyserver.client import PolicyClient, ServerUnavailableError, balancing
from policyserver.common.errors import PolicyServerError
from tests.client.conftest import FAST
from tests.client.inner_parts import connections_of
from tests.client.reference_server import ReferenceServer, Servicer
from tests.services import wait_until

pytestmark = pytest.mark.long
ZEROS = np.zeros(10, np.float32)
REST_S = 1000.0


@pytest.fixture
def service() -> Iterator[Sequence[ReferenceServer]]:
    with ExitStack() as stack:
        runners = [stack.enter_context(ReferenceServer()) for _ in range(2)]
        for runner in runners:
            runner.servicer.endpoints = [each.address for each in runners]
        yield runners


class Clock:
    """The system's clock, put forward by what a test says."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Have a runner rest for so long that it does so until the test puts this clock forward."""
    clock = Clock()
    monkeypatch.setattr(balancing, "time", clock)
    monkeypatch.setattr(balancing, "_REST_S", REST_S)
    return clock


def begun(client: PolicyClient, service: Sequence[ReferenceServer], name: str) -> int:
    """Begin an episode, end it, and return the place of its runner."""
    client.get_action(client.start_episode(name), ZEROS)
    client.end_episode(name, ZEROS)
    (place,) = [place for place, runner in enumerate(service) if name in runner.servicer.episodes]
    return place


def test_answers_of_several_runners_are_told_apart(service: Sequence[ReferenceServer]) -> None:
    with PolicyClient(service[0].address, config=FAST) as client:
        ids = client.start_episodes(["a", "b"])
        client.get_actions(ids, np.zeros((2, 10), np.float32))
        assert client.answered_stale().tolist() == [False, False]
        service[1].servicer.stale = True
        client.get_actions(ids, np.zeros((2, 10), np.float32))
        assert client.answered_stale().tolist() == [False, True]
        assert client.stale_runners == (service[1].address,)
        assert client.counters().rows_stale == 1
        service[1].servicer.stale = False
        client.get_action("b", ZEROS)
        assert not client.stale_runners
        assert client.answered_stale().tolist() == [False, True], "of the newest get_actions"
        assert client.counters().rows_stale == 1


def test_answers_of_one_runner_are_stale_together(service: Sequence[ReferenceServer]) -> None:
    service[0].servicer.stale = True
    with PolicyClient(service[0].address, config=FAST) as client:
        assert client.connect().stale
        assert client.stale_runners == (service[0].address,), "the handshake says so, too"
        assert client.answered_stale().shape == (0,)


def test_new_episodes_begin_where_they_are_learned_from_and_again_here_once_that_is_over(
    service: Sequence[ReferenceServer], clock: Clock
) -> None:
    with PolicyClient(service[0].address, config=FAST) as client:
        client.connect()
        wait_until(lambda: all(connection.is_open for connection in connections_of(client)), "both runners")
        assert begun(client, service, "a") == 0, "of equals the first"
        service[0].servicer.stale = True
        assert begun(client, service, "b") == 0, "which says it now"
        assert begun(client, service, "c") == 1
        service[0].servicer.stale = False
        assert begun(client, service, "d") == 1
        clock.ahead_s = 2 * REST_S
        assert begun(client, service, "e") == 0, "it is tried again"
        assert begun(client, service, "f") == 0


def test_a_runner_that_refused_an_episode_is_asked_again_after_a_while(service: Sequence[ReferenceServer], clock: Clock) -> None:
    """It starts episodes again when it has heard of its daemon, or is told to stay: the process is the same."""

    def refuse(episode_id: str, sequence: int) -> PolicyServerError | None:
        return ServerUnavailableError("has not heard of its daemon", reason="SHUTTING_DOWN") if sequence == 0 else None

    def accept(episode_id: str, sequence: int) -> PolicyServerError | None:
        return None

    with PolicyClient(service[0].address, config=FAST) as client:
        client.connect()
        wait_until(lambda: all(connection.is_open for connection in connections_of(client)), "both runners")
        servicer: Servicer = service[0].servicer
        servicer.refuse = refuse
        assert begun(client, service, "a") == 1
        assert begun(client, service, "b") == 1
        servicer.refuse = accept
        assert begun(client, service, "c") == 1
        clock.ahead_s = 2 * REST_S
        assert begun(client, service, "d") == 0, "it is asked again"
