"""A roll-back is served at once, whatever the server is doing: each answer by it is the checkpoint's, and learning goes on from there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.integration.controlled_server import Asker, Players, Server, asked_once, controlled, older_checkpoint
from tests.services import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]

AT_ONCE_S = 1.0
TURNS = 5
"""So often it is measured at most: one that waits for something does so each time, and a machine stands still now and then."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with controlled(tmp_path_factory.mktemp("control")) as server:
        yield server


@pytest.fixture(scope="module")
def saved(server: Server) -> tuple[int, float]:
    return older_checkpoint(server)


def roll_back_while_asked(server: Server, number: int, expected: float) -> tuple[dict[str, Any], float]:
    """Roll back and return the answer and the seconds until the first action by it; each answer by it is the checkpoint's."""
    with Asker(server.address) as asker:
        wait_until(lambda: len(asker.answers) > 3, "answers")
        begun = time.monotonic()
        answer = server.answer("rollback", str(number))
        version = answer["weights_seq_no"]
        wait_until(lambda: asker.answers[-1][1] >= version, "an answer by the checkpoint", 90.0)
    by_it = [(at, log_prob) for at, acted, log_prob in asker.answers if acted == version]
    np.testing.assert_allclose([log_prob for _, log_prob in by_it], expected, atol=1e-5)
    versions = [acted for _, acted, _ in asker.answers]
    assert versions == sorted(versions), "no version falls"
    assert answer["weights_sha256"] == server.manifest(number)["weights_sha256"] != ""
    first = min((at for at, acted, _ in asker.answers if acted >= version), default=float("inf"))
    return answer, first - begun


def rolled_back(server: Server, when: str, number: int, expected: float) -> tuple[dict[str, Any], float]:
    """Learn, and roll back while nobody, or some, play, or while learning is paused; returns the answer, and the seconds it took."""
    with Players(server.address, threads=64):
        server.has_iterated(3)
        if when == "busy":
            return roll_back_while_asked(server, number, expected)
        if when == "paused":
            server.answer("pause")
            answer, seconds = roll_back_while_asked(server, number, expected)
            served = asked_once(server.address)
            assert served[0] == answer["weights_seq_no"]
            assert served[1] == pytest.approx(expected, abs=1e-5)
            server.answer("resume")
            return answer, seconds
    _, before = asked_once(server.address)
    assert abs(before - expected) > 1e-3, "the policies must differ for this test to mean anything"
    return roll_back_while_asked(server, number, expected)


@pytest.mark.parametrize("when", ["idle", "busy", "paused"])
def test_a_roll_back_is_served_at_once_under_a_new_version_and_learning_goes_on_from_it(
    server: Server, saved: tuple[int, float], when: str
) -> None:
    number, expected = saved
    for _ in range(TURNS):
        answer, seconds = rolled_back(server, when, number, expected)
        status = server.when(lambda status: status["rolling_back_to"] is None, "the learner to follow")
        if seconds < AT_ONCE_S:
            break
    assert seconds < AT_ONCE_S
    assert answer["actors"] == 1
    assert status["restored_from"] == number
    newest = server.answer("checkpoints")["checkpoints"][-1]
    assert (newest["number"], newest["restored_from"]) == (answer["checkpoint"]["number"], number)
    assert newest["weights_seq_no"] == answer["weights_seq_no"]
    with Players(server.address):
        later = server.has_iterated(2)
    assert later["weights_seq_no"] > answer["weights_seq_no"]
    assert ("RollBack", "local", f"number={number}", None) in server.events()
    assert "Traceback" not in server.daemon.text()


@pytest.mark.parametrize("call", ["rollback", "promote"])
def test_a_roll_back_in_the_middle_of_an_update_is_served_at_once_and_the_update_is_discarded(
    server: Server, saved: tuple[int, float], call: str
) -> None:
    number, expected = saved
    target = str(number)
    if call == "promote":
        target = server.answer("load", target, "--name", "saved")["policy"]["name"]
    with Players(server.address, threads=64), Asker(server.address) as asker:
        wait_until(lambda: len(asker.answers) > 3, "answers")
        with server.held_update() as before:
            answer = server.answer(call, target)
            wait_until(lambda: asker.answers[-1][1] >= answer["weights_seq_no"], "an answer by the checkpoint, while the update runs", 90.0)
            during = server.status()
        server.answer("pause")  # which the main thread answers once it has followed
    assert (during["learning"], during["rolling_back_to"]) == ("updating", number), "the update still runs when the roll-back is served"
    by_it = [log_prob for _, acted, log_prob in asker.answers if acted == answer["weights_seq_no"]]
    np.testing.assert_allclose(by_it, expected, atol=1e-5)
    after = server.status()
    assert after["rolling_back_to"] is None
    counted = ("iteration", "steps_total", "learner_updates")
    assert [after[name] for name in counted] == [before[name] for name in counted], "neither falls nor counts what is discarded"
    assert after["weights_seq_no"] == answer["weights_seq_no"] > before["weights_seq_no"]
    assert server.answer("save")["checkpoint"]["weights_sha256"] == server.manifest(number)["weights_sha256"]
    assert "its steps and its update are discarded" in server.daemon.text()
    server.answer("resume")
    with Players(server.address):
        later = server.has_iterated(1)
    assert later["steps_total"] > after["steps_total"]
