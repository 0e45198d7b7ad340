"""A server that learns is paused, saved, rolled back and drained from a shell, while its clients play on and notice nothing."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from policyserver.client import PolicyClient
from tests.integration.controlled_server import Asker, Players, Server, asked_once, controlled, older_checkpoint
from tests.integration.daemon_process import DaemonProcess
from tests.services import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with controlled(tmp_path_factory.mktemp("control")) as server:
        yield server


@pytest.fixture(scope="module")
def saved(server: Server) -> tuple[int, float]:
    return older_checkpoint(server)


def boot_ids(status: dict[str, Any]) -> set[str]:
    return {actor["boot_id"] for actor in status["actors"]}


def test_paused_learning_leaves_the_policy_and_its_clients_alone_also_when_the_actor_is_restarted(server: Server) -> None:
    with Players(server.address):
        server.has_iterated(2)
        version = server.answer("pause")["weights_seq_no"]
        assert server.answer("pause") == {"weights_seq_no": version}, "asked twice, it is paused"
        assert server.status()["learning"] == "paused"
        server.when(lambda status: sum(actor["steps_paused"] for actor in status["actors"]) > 1500, "three batches went by")
        assert server.status()["weights_seq_no"] == version
    with PolicyClient(server.address) as client:
        assert client.stats().questions_waiting == 0
    killed = boot_ids(server.status())
    server.daemon.actor().kill()
    server.when(lambda status: bool(boot_ids(status) - killed), "another actor")
    with Players(server.address) as players:
        server.when(lambda status: sum(actor["steps_paused"] for actor in status["actors"]) > 600, "steps go by at the new actor, too")
        assert players.versions == {version}
        assert server.status()["iteration"] == server.status()["learner_updates"] == version
        server.answer("resume")
        server.answer("resume")
        server.has_iterated(2)
        with PolicyClient(server.address) as client:  # which asks the actor itself; the daemon is told a second later
            before = client.stats().steps_paused
            server.has_iterated(1)
            assert client.stats().steps_paused == before
    assert server.status()["learning"] in ("collecting", "updating")


def test_what_was_rolled_back_does_not_come_back_with_the_next_update(server: Server, saved: tuple[int, float]) -> None:
    """The learner's weights and its optimizer are the checkpoint's, not only what is served."""
    number, expected = saved
    with Players(server.address):
        server.has_iterated(2)
    before = asked_once(server.address)[1]
    server.answer("rollback", str(number))
    server.when(lambda status: status["rolling_back_to"] is None, "the learner to follow")
    server.answer("pause")
    again = server.answer("save")["checkpoint"]
    server.answer("resume")
    assert again["weights_sha256"] == server.manifest(number)["weights_sha256"]
    after = asked_once(server.address)[1]
    assert after == pytest.approx(expected, abs=1e-5)
    assert after != pytest.approx(before, abs=1e-5)


def test_what_is_refused_changes_nothing(server: Server, saved: tuple[int, float]) -> None:
    before = server.status()["weights_seq_no"]
    ended = server.ctl("rollback", "99")
    there = ", ".join(str(each["number"]) for each in server.answer("checkpoints")["checkpoints"])
    assert (ended.returncode, ended.stderr) == (
        1, f"policy-server ctl rollback: refused (NOT_FOUND): expected the number of a checkpoint that is there, {there}, received 99\n",
    )  # fmt: skip
    damaged = server.answer("save")["checkpoint"]
    Path(damaged["path"], "served.pkl").write_bytes(b"x")
    ended = server.ctl("rollback", str(damaged["number"]))
    assert (ended.returncode, "refused (FAILED_PRECONDITION)" in ended.stderr, "damaged" in ended.stderr) == (1, True, True)
    assert server.status()["weights_seq_no"] == before
    with Players(server.address):
        server.has_iterated(1)


def test_of_two_roll_backs_at_once_the_second_is_refused_with_both(server: Server, saved: tuple[int, float]) -> None:
    number, _ = saved
    other = server.answer("save", "--pin")["checkpoint"]["number"]
    with Players(server.address):
        with server.held_update():
            server.answer("rollback", str(number))
            second = server.ctl("rollback", str(other))
        assert second.returncode == 1
        assert f"refused (ABORTED): checkpoint: expected no other roll-back under way, received one to {other} while" in second.stderr
        assert f"one to {number};" in second.stderr
        assert server.when(lambda status: status["rolling_back_to"] is None, "the learner to follow")["restored_from"] == number
        server.has_iterated(1)
    server.answer("unpin", str(other))


def test_a_full_disk_is_told_and_neither_serving_nor_learning_ends(server: Server, saved: tuple[int, float]) -> None:
    number, _ = saved
    daemon = psutil.Process(server.daemon.process.pid)
    with Players(server.address):
        server.has_iterated(2)
        daemon.rlimit(psutil.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))  # no file grows beyond
        try:
            save, roll_back = server.ctl("save"), server.ctl("rollback", str(number))
        finally:
            daemon.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert (save.returncode, "refused (RESOURCE_EXHAUSTED)" in save.stderr, "can't be written" in save.stderr) == (1, True, True)
        assert (roll_back.returncode, "refused (RESOURCE_EXHAUSTED)" in roll_back.stderr) == (1, True)
        assert "is served as policy version" in roll_back.stderr
        server.when(lambda status: status["rolling_back_to"] is None, "the learner to follow")
        server.has_iterated(1)
        assert server.answer("save")["checkpoint"]["restored_from"] == number


def test_a_daemon_that_dies_right_after_a_roll_back_goes_on_from_it(server: Server, saved: tuple[int, float]) -> None:
    number, expected = saved
    with Players(server.address):
        server.has_iterated(3)
    answer = server.answer("rollback", str(number))
    server.daemon.kill()
    with DaemonProcess(server.run_folder, server.address, "--config", str(server.run_folder.parent / "server.toml")) as daemon:
        daemon.wait_ready()
        version, log_prob = asked_once(server.address)
        assert version == answer["weights_seq_no"]
        assert log_prob == pytest.approx(expected, abs=1e-5)
        status = server.answer("wait-ready")  # an actor serves before the daemon says that it is ready
        assert (status["restored_from"], status["checkpoint"]) == (number, answer["checkpoint"]["number"])
        with Players(server.address):
            assert server.has_iterated(2)["weights_seq_no"] > answer["weights_seq_no"]
        assert server.answer("drain") == {"stop_timeout_s": 46.0, "ended": True}
        assert daemon.process.wait(60.0) == 0
        assert ("Drain", "local", "", None) in server.events()


@pytest.mark.parametrize("name", ["APPO", "DQN"])
def test_an_algorithm_that_does_not_wait_and_one_that_replays_are_rolled_back_too(tmp_path: Path, name: str) -> None:
    server = Server(tmp_path, name)
    with server.daemon:
        server.answer("wait-ready", "--timeout_s", "300")
        with Players(server.address, threads=8) as players:
            server.when(lambda status: status["weights_seq_no"] >= 3, "updates")
            saved = server.answer("save", "--pin")["checkpoint"]
            server.when(lambda status: status["weights_seq_no"] >= saved["weights_seq_no"] + 10, "more updates")
            with Asker(server.address) as asker:
                answer = server.answer("rollback", str(saved["number"]))
                status = server.when(lambda status: status["rolling_back_to"] is None, "the learner to follow")
                wait_until(lambda: asker.answers[-1][1] >= answer["weights_seq_no"] + 3, "learning goes on from there", 200.0)
            versions = [acted for _, acted, _ in asker.answers]
            assert versions == sorted(versions), "no version falls"
            assert players.steps > 0
        assert answer["weights_seq_no"] > saved["weights_seq_no"] + 10
        assert answer["weights_sha256"] == saved["weights_sha256"]
        assert status["restored_from"] == saved["number"]
        assert "Traceback" not in server.daemon.text()
        assert server.answer("drain")["ended"]
