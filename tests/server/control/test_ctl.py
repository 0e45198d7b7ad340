"""`policy-server ctl` asks the process that has a run folder: its answers, refusals and exit statuses, before that process serves."""

from __future__ import annotations

import itertools
import json
import logging
import pickle
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from policyserver.common.listening import InsecureListenError
from policyserver.server.config.admin_config import AdminConfig
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.config.serving_config import ListenConfig
from policyserver.server.control import ctl as ctl_command
from policyserver.server.control.admin_security import network_access
from policyserver.server.control.admin_server import AdminServer
from policyserver.server.control.ctl_output import laid_out, plain
from policyserver.server.daemon.admin_answers import AdminAnswers
from policyserver.server.daemon.checkpoints import CheckpointFolder
from policyserver.server.daemon.loaded_policies import LoadedPolicies
from policyserver.server.daemon.private_folder import PrivateFolder
from policyserver.server.daemon.safe_point import SafePoint
from policyserver.server.daemon.served_state import SERVED_FILE
from policyserver.server.processes.driver_link import DriverLink, follow_driver
from policyserver.server.processes.link import LOG_LEVEL
from policyserver.server.processes.training_report import Progress
from policyserver.v1 import admin_service_pb2 as pb
from tests.commands import ctl, run_here


@dataclass
class Starting:
    """The admin service of a daemon that has not opened its port yet, with what belongs to it."""

    run_folder: Path
    private: Path
    checkpoints: CheckpointFolder
    link: DriverLink
    stopping: threading.Event = field(default_factory=threading.Event)
    stops: list[bool] = field(default_factory=list)
    answers: AdminAnswers = field(init=False)

    def stop(self, *, is_final: bool) -> None:
        self.stops.append(is_final)
        self.stopping.set()

    def save(self, iteration: int) -> int:
        saved = self.checkpoints.save(lambda folder: (folder / "weights").write_text("w"), Progress(iteration, 10 * iteration, 1, 1))
        return saved.number

    def ctl(self, *arguments: str) -> Any:
        return ctl(self.run_folder, *arguments)

    def answer(self, *arguments: str) -> dict[str, Any]:
        ended = self.ctl(*arguments, "--json")
        assert (ended.returncode, ended.stderr) == (0, "")
        return json.loads(ended.stdout)  # type: ignore[no-any-return]


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[Starting]:
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    config = ServerConfig(run_folder=run_folder, instance_id="it")
    folder = PrivateFolder(run_folder / "ray")
    checkpoints = CheckpointFolder(run_folder / "checkpoints", 2, config.spaces)
    link = DriverLink(folder.path / "driver.sock")
    made = Starting(run_folder, folder.path, checkpoints, link)
    safe_point = SafePoint(lambda: None, made.stopping)
    answers = AdminAnswers(config, link, checkpoints, safe_point, made.stopping, stop=made.stop, stop_timeout_s=39.0)
    made.answers = answers
    server = AdminServer(answers, folder.path)
    level = logging.getLogger().level
    yield made
    logging.getLogger().setLevel(level)
    server.close()
    link.close()
    checkpoints.close()
    folder.remove()


@pytest.mark.long
def test_a_server_says_how_it_is_before_it_serves(starting: Starting) -> None:
    status = starting.answer("status")
    assert (status["state"], status["learning"], status["run"], status["instance_id"]) == ("starting", "starting", "run", "it")
    assert (status["actors"], status["checkpoint"], status["since_iteration_s"]) == ([], None, None)
    lines = starting.ctl("status").stdout.splitlines()
    assert lines[0].split() == ["state", "starting"]
    assert "checkpoint         -" in lines


def test_only_the_servers_user_can_reach_the_socket(starting: Starting) -> None:
    assert stat.S_IMODE(starting.private.stat().st_mode) == 0o700
    assert (starting.private / "admin.sock").is_socket()


@pytest.mark.long
def test_what_needs_a_server_that_serves_is_refused_with_both_sides(starting: Starting, caplog: pytest.LogCaptureFixture) -> None:
    ended = starting.ctl("save")
    assert ended.returncode == 1
    expected = "refused (FAILED_PRECONDITION): expected a server that serves, received one that is still starting"
    assert ended.stderr.startswith(f"policy-server ctl save: {expected}")
    assert "SaveCheckpoint by local was refused: expected a server that serves" in caplog.text


@pytest.mark.long
def test_checkpoints_are_listed_and_a_pinned_one_outlives_newer_ones(starting: Starting, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert starting.answer("checkpoints") == {"checkpoints": []}
    first = starting.save(1)
    assert starting.answer("pin", str(first))["checkpoint"]["pinned"] is True
    for iteration in (2, 3, 4):
        starting.save(iteration)
    listed = starting.answer("checkpoints")["checkpoints"]
    assert [(each["number"], each["iteration"], each["pinned"]) for each in listed] == [(1, 1, True), (3, 3, False), (4, 4, False)]
    assert starting.answer("unpin", "1")["checkpoint"]["pinned"] is False
    starting.save(5)
    assert [each["number"] for each in starting.answer("checkpoints")["checkpoints"]] == [4, 5]
    assert "PinCheckpoint by local: number=1 pinned=True" in caplog.text, "who asked for what is in the log"


@pytest.mark.long
def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(starting: Starting) -> None:
    assert "a checkpoint that is there, of which the run has none yet, received 7" in starting.ctl("pin", "7").stderr
    starting.save(1)
    starting.save(2)
    ended = starting.ctl("pin", "7")
    assert ended.returncode == 1
    assert (
        ended.stderr == "policy-server ctl pin: refused (NOT_FOUND): expected the number of a checkpoint that is there, 1, 2, received 7\n"
    )


def test_the_log_level_changes_here_and_in_serving_actors_that_come_later_too(starting: Starting) -> None:
    def follow(told: list[str], heard: threading.Event) -> Any:
        def on_level(level: str) -> None:
            told.append(level)
            heard.set()

        nothing = lambda *_: None  # noqa: E731
        return follow_driver(starting.link.path, nothing, lambda: None, nothing, lambda _: {}, {LOG_LEVEL: on_level})

    told: list[tuple[list[str], threading.Event]] = [([], threading.Event()), ([], threading.Event())]
    stops = [follow(*told[0])]
    while starting.link.ask(5.0) != [{}]:
        pass
    starting.answer("log-level", "ERROR")
    assert logging.getLogger().level == logging.ERROR
    stops.append(follow(*told[1]))
    for levels, heard in told:
        assert heard.wait(60.0)
        assert levels == ["ERROR"]
    for stop in stops:
        stop()


@pytest.mark.long
def test_draining_twice_is_asked_once_more_and_does_no_harm(starting: Starting, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        assert starting.answer("drain", "--no_wait", "--final") == {"stop_timeout_s": 39.0, "ended": False}
    assert starting.stops == [True, True]
    assert starting.answer("status")["state"] == "draining"
    ended = starting.ctl("save")
    assert (ended.returncode, "refused (UNAVAILABLE): expected a server that serves, received one that drains" in ended.stderr) == (1, True)
    monkeypatch.setattr(ctl_command, "time", Ticking(45.0))
    ended = starting.ctl("drain", "--timeout_s", "60")
    assert (ended.returncode, "has not ended within 60 s" in ended.stderr) == (75, True)


class Ticking:
    """A clock on which so many seconds pass from one look to the next, and no time in sleep."""

    def __init__(self, seconds: float) -> None:
        self._looks = itertools.count()
        self._seconds = seconds

    def monotonic(self) -> float:
        look = next(self._looks)
        assert look < 10, "it waits for longer than it was told"
        return look * self._seconds

    def sleep(self, seconds: float) -> None:
        pass


@pytest.mark.long
def test_waiting_for_a_server_ends_in_time(starting: Starting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctl_command, "time", Ticking(25.0))
    ended = starting.ctl("wait-ready", "--timeout_s", "60")
    assert (ended.returncode, "expected a server that serves within 60 s (--timeout_s): it is starting" in ended.stderr) == (75, True)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e9", "soon"])
def test_a_time_to_wait_that_is_none_is_refused_with_status_2(text: str) -> None:
    ended = run_here("policy-server", "ctl", "wait-ready", "--timeout_s", text)
    assert ended.returncode == 2
    assert f"--timeout_s/--timeout-s: expected seconds, more than 0 and at most 604,800, received {text!r}" in ended.stderr


@pytest.mark.long
def test_where_a_checkpoint_was_restored_from_has_one_form_everywhere(starting: Starting) -> None:
    number = starting.save(1)
    (listed,) = starting.answer("checkpoints")["checkpoints"]
    assert (listed["restored_from"], starting.answer("status")["restored_from"]) == (None, None)
    source = starting.checkpoints.whole(number)
    starting.checkpoints.copy(source, source.progress, 1)
    assert [each["restored_from"] for each in starting.answer("checkpoints")["checkpoints"]] == [None, number]


class Holding:
    """Serving processes that hold whatever they are given."""

    def hold(self, name: str, state: Any, everything: Any) -> list[str]:
        return []

    def drop(self, name: str, everything: Any) -> None:
        pass


@pytest.mark.long
def test_dropping_a_name_that_is_not_loaded_is_done_and_says_which_are(starting: Starting) -> None:
    saved = starting.checkpoints.save(lambda folder: (folder / SERVED_FILE).write_bytes(pickle.dumps({})), Progress(1))
    starting.answers.policies = LoadedPolicies(ServerConfig().policies, starting.checkpoints, Holding())
    for name in ("first", "second"):
        starting.answer("load", str(saved.number), "--name", name)
    assert [each["name"] for each in starting.answer("status")["policies"]] == ["first", "second"], "they are there before it serves"
    ended = starting.ctl("drop", "frist")
    assert ended.returncode == 0, "a repeated call does no harm"
    assert ended.stderr == "policy-server ctl drop: no loaded policy is called 'frist'; loaded: first, second\n"
    assert ended.stdout.split() == ["was", "loaded", "no", "loaded:", "2", "first", "second"]
    assert starting.answer("drop", "first") == {"was_loaded": True, "loaded": ["second"]}
    ended = starting.ctl("drop", "first", "--json")
    assert (ended.returncode, json.loads(ended.stdout)) == (0, {"was_loaded": False, "loaded": ["second"]})


@pytest.mark.long
@pytest.mark.parametrize("folder", ["absent", "stopped", "killed"])
def test_where_no_server_is_the_status_says_so(tmp_path: Path, folder: str) -> None:
    run_folder = tmp_path / "run"
    if folder != "absent":
        run_folder.mkdir()
    if folder == "killed":
        (run_folder / "ray").symlink_to(tmp_path / "gone")
    for action in ("status", "checkpoints", "drain"):
        ended = ctl(run_folder, action)
        assert ended.returncode == 69
        assert str(run_folder) in ended.stderr


def test_a_wrong_action_or_number_is_refused_as_any_command_line() -> None:
    assert run_here("policy-server", "ctl", "pin", "x").returncode == 2
    assert run_here("policy-server", "ctl", "rollforward").returncode == 2


@pytest.fixture
def network(tmp_path: Path, missing_service: Callable[[str], NoReturn]) -> Iterator[tuple[list[str], list[str]]]:
    """A service with an address; the options of `ctl` with its own token, and with the clients'."""
    if shutil.which("openssl") is None:
        missing_service("the command openssl, which makes a certificate, is not installed")
    certificate, key, token, clients = (tmp_path / name for name in ("cert.pem", "key.pem", "operator", "clients"))
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost -addext"
    options = ["subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *options], check=True, capture_output=True)
    key.chmod(0o600)
    for file, secret in ((token, "0123456789abcdef"), (clients, "fedcba9876543210")):
        file.touch(0o600)
        file.write_text(secret)
    admin = AdminConfig("127.0.0.1:0", certificate, key, token)
    config = ServerConfig(run_folder=tmp_path / "run", admin=admin)
    checkpoints = CheckpointFolder(tmp_path / "checkpoints", 2, config.spaces)
    checkpoints.save(lambda folder: (folder / "weights").write_text("w"), Progress(1))
    link, stopping = DriverLink(tmp_path / "driver.sock"), threading.Event()
    answers = AdminAnswers(
        config, link, checkpoints, SafePoint(lambda: None, stopping), stopping, stop=lambda **_: None, stop_timeout_s=1.0
    )
    with pytest.raises(InsecureListenError, match=r"admin.token_file: expected a token of its own .* clients may not steer"):
        network_access(replace(admin, token_file=clients), ListenConfig(token_file=clients))
    server = AdminServer(answers, tmp_path, network_access(admin, ListenConfig(token_file=clients)))
    options = ["--address", server.address, "--tls_ca_file", str(certificate), "--token_file"]
    yield [*options, str(token)], [*options, str(clients)]
    server.close()
    link.close()
    checkpoints.close()


@pytest.mark.process
def test_over_the_network_only_the_services_own_token_steers_and_checkpoints_have_no_paths(
    network: tuple[list[str], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    operator, client = network
    ended = run_here("policy-server", "ctl", "checkpoints", "--json", *operator)
    assert ended.returncode == 0, ended.stderr
    assert [(each["number"], each["path"]) for each in json.loads(ended.stdout)["checkpoints"]] == [(1, "")]
    assert "ListCheckpoints by operator" in caplog.text
    for action in ("status", "drain"):
        ended = run_here("policy-server", "ctl", action, *client)
        assert ended.returncode == 77
        assert "with the token of admin.token_file, received another one: a client's token does not steer" in ended.stderr
    assert "Drain by ipv4:127.0.0.1" in caplog.text, "who was refused is in the log"
    assert run_here("policy-server", "ctl", "status", *operator[:2]).returncode == 2


@pytest.mark.parametrize("address", ["127.0.0.1:9901", "0.0.0.0:9901"])
def test_an_address_without_certificate_key_and_token_is_refused_on_loopback_too(address: str) -> None:
    with pytest.raises(InsecureListenError, match=r"admin.tls_certificate_file and admin.tls_key_file and admin.token_file must be given"):
        network_access(AdminConfig(address), ListenConfig())


@pytest.mark.parametrize("number", ["-1", "0", "99999999999999999999", "x"])
def test_a_number_that_no_checkpoint_can_have_is_refused_with_status_2(number: str) -> None:
    ended = run_here("policy-server", "ctl", "rollback", number)
    assert ended.returncode == 2
    assert "expected" in ended.stderr
    assert number in ended.stderr
    assert "Traceback" not in ended.stderr


def test_one_server_is_asked_and_not_the_other_of_two_that_are_named(tmp_path: Path) -> None:
    ended = run_here("policy-server", "ctl", "status", "--run_folder", str(tmp_path), "--address", "127.0.0.1:1")
    assert ended.returncode == 2
    assert "received both" in ended.stderr


def test_what_is_in_an_entry_of_a_list_is_laid_out_for_a_person() -> None:
    answer = pb.StatusResponse(policies=[pb.PolicyInfo(name="first", checkpoint=pb.CheckpointInfo(number=1, path="/run/c-1"))])
    shown = "\n".join(laid_out(plain(answer)))
    assert "name first" in shown
    assert "checkpoint number 1" in shown
    assert "{" not in shown


def test_numbers_of_silent_actors_are_told_from_how_many_they_are() -> None:
    answer = plain(pb.StatusResponse(actors_silent=[1, 3]))
    assert (answer["actors_silent"], answer["actors"]) == ([1, 3], [])
    assert "actors silent: 2 (numbers 1, 3)" in list(laid_out(answer))
    assert "actors silent: 1 (number 3)" in list(laid_out(plain(pb.StatusResponse(actors_silent=[3]))))
    assert "actors silent: 0" in list(laid_out(plain(pb.StatusResponse())))


def test_serving_actors_are_shown_as_a_table_without_what_none_has() -> None:
    serving = pb.ServingActor(
        number=1, state=pb.ACTOR_STATE_SERVING, addresses=["10.77.0.2:9900"], episodes_open=12, actions_per_s=1034.26, weights_seq_no=7
    )
    away = pb.ServingActor(number=10, state=pb.ACTOR_STATE_AWAY)
    answer = plain(pb.StatusResponse(serving_actors=[serving, away]))
    lines = list(laid_out(answer))
    begin = lines.index("serving actors: 2")
    assert lines[begin + 1 : begin + 4] == [
        "  number  state    addresses       weights seq no  episodes open  actions per s",
        "       1  serving  10.77.0.2:9900               7             12         1034.3",
        "      10  away     -                            -              -              -",
    ]
    assert answer["serving_actors"][1] == {
        "number": 10,
        "state": "away",
        "addresses": [],
        "host": "",
        "node_address": "",
        "weights_seq_no": None,
        "episodes_open": None,
        "actions_per_s": None,
        "since_answer_s": None,
        "boot_id": "",
    }
    assert "serving actors: 0" in list(laid_out(plain(pb.StatusResponse())))


def test_what_actors_have_counted_is_shown_as_a_table() -> None:
    actors = [pb.ActorStatus(boot_id="ab", uptime_s=9.26, actions=1_000, steps_waiting=5), pb.ActorStatus(boot_id="cd", actions=2)]
    lines = list(laid_out(plain(pb.StatusResponse(actors=actors))))
    begin = lines.index("actors: 2")
    heading, *rows = (line.split() for line in lines[begin + 1 : begin + 4])
    assert heading[:4] == ["boot", "id", "uptime", "s"]
    assert rows == [["ab", "9.3", "0", "0", "0", "1,000", "5", "0", "0"], ["cd", "0.0", "0", "0", "0", "2", "0", "0", "0"]]
