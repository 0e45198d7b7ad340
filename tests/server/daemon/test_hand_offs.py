"""Steps that an actor handed off and that never arrived are counted once its next answer is there."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from policyserver.server.daemon.actor_health import ActorHealth
from policyserver.server.daemon.hand_offs import HandOffs
from policyserver.server.processes.hand_off import HAND_OFF
from tests.server.daemon.rllib_manager import Manager, algorithm_of


def answer(handed_off: int, steps: int, boot_id: str = "a") -> tuple[list[Any], dict[str, Any]]:
    return [], {HAND_OFF: (boot_id, handed_off), "num_env_steps_sampled": steps, "other": 1}


def test_an_answer_that_did_not_come_is_missed_at_the_next_one(caplog: pytest.LogCaptureFixture) -> None:
    offs = HandOffs()
    with caplog.at_level(logging.WARNING):
        offs.look([(1, answer(100, 100)), (2, answer(80, 80, "b"))])
        offs.look([(1, answer(200, 100))])
        assert (offs.take(), offs.undelivered) == (0, 0)
        offs.look([(1, answer(350, 50))])  # that of 100 in between is lost
        offs.look([(1, answer(350, 0))])
        assert not caplog.messages[1:]
        assert "serving actor 1 handed off 100 steps that did not arrive" in caplog.text
    assert (offs.take(), offs.take(), offs.undelivered) == (100, 0, 100)
    offs.look([(2, answer(90, 0, "b"))])
    offs.look([(1, answer(30, 30, "its successor"))])
    assert (offs.take(), offs.undelivered) == (10, 110)


def test_an_answer_that_comes_after_a_later_one_is_missed_no_more(caplog: pytest.LogCaptureFixture) -> None:
    """As with APPO and IMPALA, which may have several requests under way in one actor."""
    caplog.set_level(logging.INFO)
    health, manager = ActorHealth(), Manager()
    health.watch(algorithm_of(manager))
    offs = health.hand_offs

    def fetched(handed_off: int) -> None:
        manager.answers = [(1, (object(), {"state": 1}, answer(handed_off, 100)[1]))]
        manager.fetch_ready_async_reqs(timeout_seconds=0.0)

    fetched(200)
    assert offs.undelivered == 100
    fetched(100)
    assert (offs.take(), offs.undelivered) == (0, 0), "not told yet"
    fetched(400)
    assert (offs.take(), offs.undelivered) == (100, 100)
    fetched(300)
    assert (offs.take(), offs.undelivered) == (0, 0), "it was told, so that it is taken off the next"
    assert "serving actor 1: 100 steps that were missed (steps_undelivered) have arrived" in caplog.text
    fetched(700)
    assert (offs.take(), offs.undelivered) == (100, 200)


def test_what_is_lost_stays_so_whatever_arrives_late() -> None:
    offs = HandOffs()
    for handed_off in (400, 200):  # those of 100 and 300 are lost
        offs.look([(1, answer(handed_off, 100))])
    offs.look([(1, answer(500, 100))])
    assert (offs.take(), offs.undelivered) == (200, 200)


def test_a_process_that_lives_is_remembered_however_many_others_come_and_go() -> None:
    offs = HandOffs()
    for number in range(1, 1_200):
        offs.look([(1, answer(10 * number, 10, "lives")), (2, answer(10, 10, f"went {number}"))])
    assert offs.undelivered == 0


def test_what_is_meant_for_it_alone_goes_no_further() -> None:
    offs = HandOffs()
    sampled, asynchronous, state = answer(5, 5), (object(), {"state": 1}, answer(10, 5)[1]), {"weights": 1}
    offs.look([(1, sampled), (1, asynchronous), (1, state), (1, "pong"), (1, None), (1, ())])
    assert sampled[1] == asynchronous[2] == {"num_env_steps_sampled": 5, "other": 1}
    assert state == {"weights": 1}
    assert offs.undelivered == 0


def test_all_that_rllib_fetches_is_looked_at() -> None:
    health, manager = ActorHealth(), Manager()
    health.watch(algorithm_of(manager))
    manager.answers = [(1, answer(10, 0)), (2, ValueError("the actor's"))]
    manager._fetch_result(remote_actor_ids=[1, 2], remote_calls=[], timeout_seconds=0.0)
    assert health.hand_offs.undelivered == 10
    health.note(2, True)
    assert health.silent == [2]


def test_an_actor_that_was_left_out_is_not_waited_for_for_long() -> None:
    """RLlib's 30 s would be a pause of learning: after a heal Ray's calls take that long now and then."""
    health, manager = ActorHealth(), Manager()
    health.watch(algorithm_of(manager))
    for asks, timeout_s in ((True, 30.0), (True, None), (False, 30.0)):
        manager._fetch_result(remote_actor_ids=[], remote_calls=[], mark_healthy=asks, timeout_seconds=timeout_s)
    assert manager.timeouts_s == [1.0, 1.0, 30.0]
