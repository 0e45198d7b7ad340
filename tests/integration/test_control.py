"""A server that learns is paused, saved, rolled back and drained from a shell, while its clients play on and notice nothing."""

from __future__ import annotations

import contextlib
import json
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from policyserver.client import PolicyClient
from policyserver.common.tensors import from_tensor, to_tensor
from policyserver.monitoring.store.reader import StoreReader
from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import policy_service_pb2_grpc as pb_grpc
from tests.commands import ctl, ctl_answer
from tests.integration.daemon_process import DaemonProcess
from tests.ports import DIRECT, free_address
from tests.services import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

CONFIG = """
[spaces.observation]
type = "Box"
low = -inf
high = inf
shape = [4]
[spaces.action]
type = "Discrete"
n = 2
[algorithm]
name = "{name}"
{training}
[algorithm.reporting]
min_time_s_per_iteration = 0
min_sample_timesteps_per_iteration = 0
[algorithm.rl_module.model_config]
fcnet_hiddens = [16]
use_lstm = false
[checkpoints]
every_iterations = 0
keep = 2
[hand_off]
batches_ahead = 1.0
[rollback]
keep_replay = false
"""
TRAINING = {
    "PPO": "[algorithm.training]\ntrain_batch_size_per_learner = 512\nminibatch_size = 128\nnum_epochs = 20\nlr = 0.003",
    "APPO": "[algorithm.training]\ntrain_batch_size_per_learner = 128\nlr = 0.003\n[algorithm.env_runners]\nrollout_fragment_length = 32",
    "DQN": "[algorithm.training]\nnum_steps_sampled_before_learning_starts = 64\n[algorithm.env_runners]\nrollout_fragment_length = 32",
}
PROBE = np.array([0.3, -0.2, 0.1, 0.05], np.float32)


class Server:
    """A daemon, and `ctl` pointed at it."""

    def __init__(self, folder: Path, name: str = "PPO", more: str = "") -> None:
        self.run_folder = folder / "run"
        (folder / "server.toml").write_text(CONFIG.format(name=name, training=TRAINING[name]) + more)
        self.daemon = DaemonProcess(self.run_folder, free_address(), "--config", str(folder / "server.toml"))

    @property
    def address(self) -> str:
        return self.daemon.address

    def ctl(self, *arguments: str) -> Any:
        return ctl(self.run_folder, *arguments)

    def answer(self, *arguments: str) -> dict[str, Any]:
        return ctl_answer(self.run_folder, *arguments)

    def status(self) -> dict[str, Any]:
        return self.answer("status")

    def when(self, condition: Callable[[dict[str, Any]], bool], what: str, timeout_s: float = 90.0) -> dict[str, Any]:
        """Wait until the status meets a condition, and return it."""
        met: list[dict[str, Any]] = []

        def is_met() -> bool:
            status = self.status()
            if condition(status):
                met.append(status)
            return bool(met)

        wait_until(is_met, what, timeout_s)
        return met[0]

    def has_iterated(self, more: int) -> dict[str, Any]:
        """Wait until learning has gone on for some iterations."""
        least = self.status()["iteration"] + more
        return self.when(lambda status: status["iteration"] >= least, f"iteration {least}")

    def events(self) -> list[tuple[Any, ...]]:
        with contextlib.closing(StoreReader(self.run_folder / "store.sqlite")) as reader:
            return reader.select("SELECT call, who, request, refusal FROM control ORDER BY id", ())


class Players:
    """Threads that play until the end of a `with` block, each answer's policy version and the longest wait; an error fails the test."""

    def __init__(self, address: str, threads: int = 8) -> None:
        self._client = PolicyClient(address)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._play, args=(number,)) for number in range(threads)]
        self.errors: list[BaseException] = []
        self.versions: set[int] = set()
        self.steps = 0

    def __enter__(self) -> Players:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60.0)
        self._client.close()
        assert not self.errors, self.errors

    def _play(self, number: int) -> None:
        random = np.random.default_rng(number)
        try:
            while not self._stop.is_set():
                episode = self._client.start_episode()
                for _ in range(30):
                    self._client.get_action(episode, random.normal(size=4).astype(np.float32))
                    self._client.log_returns(episode, float(random.normal()))
                    self.versions.add(self._client.weights_seq_no)
                    self.steps += 1
                    if self._stop.wait(0.001):
                        break
                self._client.end_episode(episode, np.zeros(4, np.float32))
        except Exception as error:
            self.errors.append(error)


class Asker:
    """Asks all the time, on a thread, what the policy would do, in episodes that are not trained on; until the end of a `with` block."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answers: list[tuple[float, int, float]] = []
        """When each came, the policy version, and the log-probability of action 0."""
        self.errors: list[BaseException] = []

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30.0)
        assert not self.errors, self.errors

    def _ask(self) -> None:
        try:
            with grpc.insecure_channel(self._address, DIRECT) as channel:
                stub = pb_grpc.PolicyServiceStub(channel)
                while not self._stop.wait(0.005):
                    self.answers.append(ask(stub))
        except Exception as error:
            self.errors.append(error)


def ask(stub: pb_grpc.PolicyServiceStub) -> tuple[float, int, float]:
    episode = stub.StartEpisode(pb.StartEpisodeRequest(training_disabled=True)).episode_id
    reply = stub.GetAction(pb.GetActionRequest(episode_id=episode, observation=[to_tensor(PROBE)], no_wait=True))
    stub.EndEpisode(pb.EndEpisodeRequest(episode_id=episode, observation=[to_tensor(PROBE)]))
    is_zero = int(from_tensor(reply.action[0], "action")) == 0
    log_prob = reply.action_log_prob if is_zero else float(np.log1p(-np.exp(reply.action_log_prob)))
    return time.monotonic(), int(reply.weights_seq_no), log_prob


def asked_once(address: str) -> tuple[int, float]:
    with grpc.insecure_channel(address, DIRECT) as channel:
        _, version, log_prob = ask(pb_grpc.PolicyServiceStub(channel))
    return version, log_prob


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("control"))
    with server.daemon:
        assert server.answer("wait-ready", "--timeout_s", "300")["state"] == "serving"
        yield server


def steps_paused(server: Server) -> int:
    return sum(actor["steps_paused"] for actor in server.status()["actors"])


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
    server.daemon.actor().kill()
    server.when(lambda status: any(actor["uptime_s"] < 20.0 and actor["actions"] == 0 for actor in status["actors"]), "another actor")
    with Players(server.address) as players:
        server.when(lambda status: sum(actor["steps_paused"] for actor in status["actors"]) > 600, "steps go by at the new actor, too")
        assert players.versions == {version}
        assert server.status()["iteration"] == server.status()["learner_updates"] == version
        server.answer("resume")
        server.answer("resume")
        server.has_iterated(2)
        before = steps_paused(server)
        server.has_iterated(1)
        assert steps_paused(server) == before
    assert server.status()["learning"] in ("collecting", "updating")


def roll_back_while_asked(server: Server, number: int, expected: float) -> tuple[dict[str, Any], float]:
    """Roll back and return the answer and the seconds until the first action by it; each answer by it is the checkpoint's."""
    with Asker(server.address) as asker:
        wait_until(lambda: len(asker.answers) > 3, "answers")
        begun = time.monotonic()
        answer = server.answer("rollback", str(number))
        version = answer["weights_seq_no"]
        wait_until(lambda: asker.answers[-1][1] >= version, "an answer by the checkpoint")
    by_it = [(at, log_prob) for at, acted, log_prob in asker.answers if acted == version]
    np.testing.assert_allclose([log_prob for _, log_prob in by_it], expected, atol=1e-5)
    versions = [acted for _, acted, _ in asker.answers]
    assert versions == sorted(versions), "no version falls"
    assert answer["weights_sha256"] == manifest(server, number)["weights_sha256"] != ""
    first = min((at for at, acted, _ in asker.answers if acted >= version), default=float("inf"))
    return answer, first - begun


def manifest(server: Server, number: int) -> dict[str, Any]:
    path = server.run_folder / "checkpoints" / f"checkpoint-{number:08d}" / "manifest.json"
    return json.loads(path.read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def saved(server: Server) -> tuple[int, float]:
    """A pinned checkpoint, and the log-probability that its policy gives; learning has gone on since."""
    with Players(server.address):
        server.has_iterated(1)
        server.answer("pause")
        number = server.answer("save", "--pin")["checkpoint"]["number"]
        _, log_prob = asked_once(server.address)
        server.answer("resume")
        server.has_iterated(6)
    return number, log_prob


@pytest.mark.alone
@pytest.mark.parametrize("when", ["idle", "busy", "paused"])
def test_a_roll_back_is_served_at_once_under_a_new_version_and_learning_goes_on_from_it(
    server: Server, saved: tuple[int, float], when: str
) -> None:
    number, expected = saved
    with Players(server.address, threads=64):
        server.has_iterated(3)
        if when == "busy":
            answer, seconds = roll_back_while_asked(server, number, expected)
        elif when == "paused":
            server.answer("pause")
            answer, seconds = roll_back_while_asked(server, number, expected)
            served = asked_once(server.address)
            assert served[0] == answer["weights_seq_no"]
            assert served[1] == pytest.approx(expected, abs=1e-5)
            server.answer("resume")
    if when == "idle":
        _, before = asked_once(server.address)
        assert abs(before - expected) > 1e-3, "the policies must differ for this test to mean anything"
        answer, seconds = roll_back_while_asked(server, number, expected)
    assert seconds < 1.0
    assert answer["actors"] == 1
    status = server.when(lambda status: status["rolling_back_to"] is None, "the learner to follow")
    assert status["restored_from"] == number
    newest = server.answer("checkpoints")["checkpoints"][-1]
    assert (newest["number"], newest["restored_from"]) == (answer["checkpoint"]["number"], number)
    assert newest["weights_seq_no"] == answer["weights_seq_no"]
    with Players(server.address):
        later = server.has_iterated(2)
    assert later["weights_seq_no"] > answer["weights_seq_no"]
    assert ("RollBack", "local", f"number={number}", None) in server.events()
    assert "Traceback" not in server.daemon.text()


@pytest.mark.alone
@pytest.mark.parametrize("call", ["rollback", "promote"])
def test_a_roll_back_in_the_middle_of_an_update_is_served_at_once_and_the_update_is_discarded(
    server: Server, saved: tuple[int, float], call: str
) -> None:
    number, expected = saved
    target = str(number)
    if call == "promote":
        target = server.answer("load", target, "--name", "saved")["policy"]["name"]
    with Players(server.address, threads=64):
        for _ in range(20):
            with Asker(server.address) as asker:
                wait_until(lambda: len(asker.answers) > 3, "answers")
                before = server.when(lambda status: status["learning"] == "updating", "an update")
                begun = time.monotonic()
                answer = server.answer(call, target)
                during = server.status()
                server.answer("pause")  # which the main thread answers once it has followed
            if (during["learning"], during["rolling_back_to"]) == ("updating", number):
                break
            server.answer("resume")
            server.has_iterated(1)
    assert (during["learning"], during["rolling_back_to"]) == ("updating", number), "the update still runs when the roll-back is served"
    by_it = [(at, log_prob) for at, acted, log_prob in asker.answers if acted == answer["weights_seq_no"]]
    np.testing.assert_allclose([log_prob for _, log_prob in by_it], expected, atol=1e-5)
    assert by_it[0][0] - begun < 1.0
    after = server.status()
    assert after["rolling_back_to"] is None
    counted = ("iteration", "steps_total", "learner_updates")
    assert [after[name] for name in counted] == [before[name] for name in counted], "neither falls nor counts what is discarded"
    assert after["weights_seq_no"] == answer["weights_seq_no"] > before["weights_seq_no"]
    assert server.answer("save")["checkpoint"]["weights_sha256"] == manifest(server, number)["weights_sha256"]
    assert "its steps and its update are discarded" in server.daemon.text()
    server.answer("resume")
    with Players(server.address):
        later = server.has_iterated(1)
    assert later["steps_total"] > after["steps_total"]


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
    assert again["weights_sha256"] == manifest(server, number)["weights_sha256"]
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
        for _ in range(20):
            server.when(lambda status: status["learning"] == "updating", "an update")
            server.answer("rollback", str(number))
            second = server.ctl("rollback", str(other))
            if second.returncode == 1:
                break
            server.when(lambda status: status["rolling_back_to"] is None, "the learner to follow")
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
        daemon.wait_ready(150.0)
        version, log_prob = asked_once(server.address)
        assert version == answer["weights_seq_no"]
        assert log_prob == pytest.approx(expected, abs=1e-5)
        status = server.answer("wait-ready")  # an actor serves before the daemon says that it is ready
        assert (status["restored_from"], status["checkpoint"]) == (number, answer["checkpoint"]["number"])
        with Players(server.address):
            assert server.has_iterated(2)["weights_seq_no"] > answer["weights_seq_no"]
        assert server.answer("drain") == {"stop_timeout_s": 39.0, "ended": True}
        assert daemon.process.wait(10.0) == 0
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
                wait_until(lambda: asker.answers[-1][1] >= answer["weights_seq_no"] + 3, "learning goes on from there", 60.0)
            versions = [acted for _, acted, _ in asker.answers]
            assert versions == sorted(versions), "no version falls"
            assert players.steps > 0
        assert answer["weights_seq_no"] > saved["weights_seq_no"] + 10
        assert answer["weights_sha256"] == saved["weights_sha256"]
        assert status["restored_from"] == saved["number"]
        assert "Traceback" not in server.daemon.text()
        assert server.answer("drain")["ended"]
