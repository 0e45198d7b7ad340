"""Which runners belong to one service: those that list the same addresses, or name the same instance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from policyserver.client import PolicyClient
from tests.client.conftest import Service
from tests.client.reference_server import ReferenceServer


def batch(rows: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.zeros((rows, 10), np.float32)


def held(runner: ReferenceServer) -> set[str]:
    return set(runner.servicer.episodes)


@pytest.mark.long
def test_a_runner_of_another_service_gets_no_episodes(
    service: Service, connect_to: Callable[..., PolicyClient], caplog: pytest.LogCaptureFixture
) -> None:
    service[1].servicer.endpoints = [service[1].address]
    client = connect_to(service)
    client.get_actions(client.start_episodes(4), batch(4))
    assert [len(held(runner)) for runner in service] == [4, 0]
    assert any("expected a runner of the same service" in record.getMessage() for record in caplog.records)


@pytest.mark.long
@pytest.mark.parametrize(("instances", "open_at_each"), [(("a", "a"), [2, 2]), (("a", "b"), [4, 0]), (("", ""), [4, 0])])
def test_a_runner_that_lists_other_addresses_is_of_the_service_whose_instance_it_names(
    service: Service, connect_to: Callable[..., PolicyClient], instances: tuple[str, str], open_at_each: list[int]
) -> None:
    for runner, instance in zip(service, instances, strict=True):
        runner.servicer.identity = {"run": "mine", "instance_id": instance}
    service[1].servicer.endpoints = [service[1].address]  # as it does until it is told of one that moved to another machine
    client = connect_to(service)
    client.get_actions(client.start_episodes(4), batch(4))
    assert [len(held(runner)) for runner in service] == open_at_each
