"""A runner that ends starts no new episodes: a client's begin on another one, and its open ones go on where they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest

from policyserver.client import ActionTimeoutError, PolicyClient, ServerUnavailableError
from policyserver.common.errors import PolicyServerError
from tests.client.conftest import FAST
from tests.client.inner_parts import connections_of
from tests.client.reference_server import ReferenceServer, Servicer
from tests.services import wait_until

ZEROS = np.zeros(10, np.float32)


@pytest.fixture
def service() -> Iterator[Sequence[ReferenceServer]]:
    with ExitStack() as stack:
        runners = [stack.enter_context(ReferenceServer()) for _ in range(2)]
        for runner in runners:
            runner.servicer.endpoints = [each.address for each in runners]
        yield runners


def retire(runner: ReferenceServer) -> None:
    def refuse(episode_id: str, sequence: int) -> PolicyServerError | None:
        begins = sequence == 0 and episode_id not in runner.servicer.episodes
        return ServerUnavailableError("starts no new episodes", reason="SHUTTING_DOWN") if begins else None

    runner.servicer.refuse = refuse


def held(runner: ReferenceServer) -> set[str]:
    return set(runner.servicer.episodes)


@pytest.mark.long
@pytest.mark.parametrize("together", [True, False])
def test_new_episodes_begin_on_the_other_runner(service: Sequence[ReferenceServer], together: bool) -> None:
    with PolicyClient(service[0].address, config=FAST) as client:
        client.get_actions(client.start_episodes(["a", "b"]), np.zeros((2, 10), np.float32))
        assert (held(service[0]), held(service[1])) == ({"a"}, {"b"})
        retire(service[0])
        new = client.start_episodes(["c", "d", "e", "f"])
        if together:
            client.get_actions(new, np.zeros((4, 10), np.float32))
        else:
            for episode in new:
                client.get_action(episode, ZEROS)
        assert (held(service[0]), held(service[1])) == ({"a"}, {"b", "c", "d", "e", "f"})
        for episode in ("a", *new):
            client.get_action(episode, ZEROS)
            client.end_episode(episode, ZEROS)
        assert client.counters().episodes_lost == 0


@pytest.mark.long
def test_the_runner_in_its_place_gets_episodes_again(service: Sequence[ReferenceServer]) -> None:
    with PolicyClient(service[0].address, config=FAST) as client:
        client.get_action(client.start_episode("a"), ZEROS)
        client.end_episode("a", ZEROS)
        retire(service[0])
        client.get_action(client.start_episode("b"), ZEROS)
        assert held(service[1]) == {"b"}
        successor = Servicer()
        successor.endpoints = service[0].servicer.endpoints
        service[0].stop()
        service[0].start(successor)
        wait_until(lambda: not connections_of(client)[0].retires and connections_of(client)[0].is_open, "the successor")
        client.get_action(client.start_episode("c"), ZEROS)
        assert held(service[0]) == {"c"}


@pytest.mark.long
def test_a_start_that_a_runner_refused_is_not_lost_with_it(service: Sequence[ReferenceServer]) -> None:
    """The other runner connects while the caller pauses between two tries, and the first one ends before the second try."""
    service[1].stop()
    with PolicyClient(service[0].address, config=replace(FAST, overload_backoff_initial_s=2.0, overload_backoff_max_s=2.0)) as client:
        client.connect()
        retire(service[0])
        began = threading.Thread(target=client.get_action, args=(client.start_episode("a"), ZEROS))
        began.start()
        wait_until(lambda: connections_of(client)[0].retires, "the refusal")
        service[1].start()
        wait_until(lambda: connections_of(client)[1].is_open, "the other runner")
        service[0].stop()
        began.join(100.0)
        assert held(service[1]) == {"a"}
        assert client.counters().episodes_lost == 0


@pytest.mark.long
def test_where_all_runners_end_a_start_waits_and_then_says_so(service: Sequence[ReferenceServer]) -> None:
    with PolicyClient(service[0].address, config=FAST) as client:
        client.connect()
        for runner in service:
            retire(runner)
        begun: list[str] = []

        def is_answered_in_time() -> bool:
            begun.append(client.start_episode())
            with pytest.raises((ServerUnavailableError, ActionTimeoutError)) as error:
                client.get_action(begun[-1], ZEROS, timeout_s=0.25 * 2 ** len(begun))
            assert error.value.reason in ("SHUTTING_DOWN", ActionTimeoutError("").reason)
            return error.value.reason == "SHUTTING_DOWN"

        wait_until(is_answered_in_time, "a refusal")
        for runner in service:
            runner.servicer.refuse = lambda episode_id, sequence: None
        client.get_action(begun[-1], ZEROS)
        client.end_episode(begun[-1], ZEROS)
