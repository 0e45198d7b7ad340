"""RLlib's manager of actors is the main thread's: what the link's thread notes meanwhile changes nothing in it until it chooses actors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ClassVar

import pytest

from policyserver.server.daemon.actor_health import ActorHealth
from tests.server.daemon.rllib_manager import Manager, algorithm_of

TAG = "sample"


@pytest.fixture
def manager() -> Manager:
    return Manager()


@pytest.fixture
def health(manager: Manager) -> ActorHealth:
    health = ActorHealth()
    health.watch(algorithm_of(manager))
    return health


def by_the_link(health: ActorHealth, index: int, is_silent: bool) -> None:
    """Note it on another thread, and wait until that is done."""
    link = threading.Thread(target=health.note, args=(index, is_silent))
    link.start()
    link.join()


class Tag(str):
    """A tag of RLlib's at whose comparison something happens: RLlib does that while it iterates over what is under way."""

    on_compared: ClassVar[Callable[[], None]] = staticmethod(lambda: None)

    def __hash__(self) -> int:
        type(self).on_compared()
        return super().__hash__()


def test_what_is_under_way_does_not_change_while_rllib_iterates_over_it(
    health: ActorHealth, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = Tag(TAG)
    for _ in range(2):
        manager.foreach_actor_async("sample", tag=tag)
    assert manager.num_outstanding_async_reqs() == 4
    monkeypatch.setattr(Tag, "on_compared", staticmethod(lambda: by_the_link(health, 2, is_silent=True)))
    calls, indices, _ = manager._filter_calls_by_tag(TAG)  # as `fetch_ready_async_reqs` begins
    assert (len(calls), sorted(indices)) == (4, [1, 1, 2, 2])


def test_a_silent_actor_is_out_of_service_before_the_next_choice(health: ActorHealth, manager: Manager) -> None:
    manager.foreach_actor_async("sample", tag=TAG)
    by_the_link(health, 2, is_silent=True)
    assert manager.is_actor_healthy(2), "the link's thread changes nothing"
    assert manager.foreach_actor_async("sample", tag=TAG) == 1
    assert (manager.num_outstanding_async_reqs(), len(manager._in_flight_req_to_actor_id)) == (2, 2), "those of the other"
    assert [len(actor.calls) for actor in manager.made] == [2, 1]
    manager.foreach_actor("sample", timeout_seconds=0.0)
    assert [len(actor.calls) for actor in manager.made] == [3, 1]


@pytest.mark.parametrize("choose", ["healthy_actor_ids", "num_healthy_actors"])
def test_a_silent_actor_is_not_said_to_be_in_service(health: ActorHealth, manager: Manager, choose: str) -> None:
    by_the_link(health, 2, is_silent=True)
    assert getattr(manager, choose)() in ([1], 1)


def test_an_actor_is_left_out_that_a_probe_brought_back_as_it_fell_silent(health: ActorHealth, manager: Manager) -> None:
    by_the_link(health, 2, is_silent=True)
    assert manager.healthy_actor_ids() == [1]
    manager.set_actor_state(2, True)  # RLlib, at the answer to a call from before that
    assert manager.healthy_actor_ids() == [1]


def test_an_actor_that_was_silent_meanwhile_is_left_out_until_rllib_probes_it(health: ActorHealth, manager: Manager) -> None:
    """Ray's connection may take longer to heal than the link's, and what is under way would be waited for."""
    manager.foreach_actor_async("sample", tag=TAG)
    by_the_link(health, 2, is_silent=True)
    by_the_link(health, 2, is_silent=False)
    assert health.silent == []
    assert health._gives_up([2], ["under way"], 60.0), "waits until Ray answers"
    assert manager.healthy_actor_ids() == [1]
    assert manager.num_outstanding_async_reqs() == 1
    manager.set_actor_state(2, True)  # the probe
    assert manager.healthy_actor_ids() == [1, 2]


def test_an_actor_that_is_gone_for_good_is_no_reason_to_fail(health: ActorHealth, manager: Manager) -> None:
    by_the_link(health, 2, is_silent=True)
    manager.remove_actor(2)
    by_the_link(health, 7, is_silent=True)
    assert manager.healthy_actor_ids() == [1]
