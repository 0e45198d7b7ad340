"""The link between machines: what its messages do, who is let in, and what silence and ends mean. Both ends are in this process here."""

from __future__ import annotations

import contextlib
import logging
import queue
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import grpc
import numpy as np
import pytest

from policyserver.server.config.link_address import RemoteAddress
from policyserver.server.processes import remote_follower, remote_link
from policyserver.server.processes.link import ACTORS, ENDPOINTS, INTERRUPT, PAUSE, ROLL_BACK, Followed
from policyserver.server.processes.link_secret import ACTOR, DAEMON, ActorSecret, Identity, NoCertificateError, make_identity
from policyserver.server.processes.remote_follower import RemoteFollower
from policyserver.server.processes.remote_link import RemoteLink
from policyserver.v1 import driver_link_pb2 as pb
from policyserver.v1 import driver_link_pb2_grpc as service
from tests.ports import DIRECT, free_address

pytestmark = [pytest.mark.process, pytest.mark.long]

VERSION = "1.0 (sources abc)"
NEVER_S = 600.0
"""For tests about something else than silence: a machine that stands still for some seconds is no silence then."""


class Follower:
    def __init__(self, link: RemoteLink, index: int = 1, *, address: str | None = None, secret: ActorSecret | None = None) -> None:
        self.events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.gone, self.silent, self.over, self.back = (threading.Event() for _ in range(4))
        self.answer: Callable[[], Any] = lambda: {"actions": index}
        self.beat = pb.Beat()

        def note(kind: str) -> Callable[[Any], None]:
            return lambda content: self.events.put((kind, content))

        followed = Followed(
            note("drain"),
            self.gone.set,
            note("state"),
            lambda asked: self.answer(),
            {kind: note(kind) for kind in (INTERRUPT, PAUSE, ENDPOINTS)},
            {ROLL_BACK: lambda asked: ("rolled", asked)},
        )
        where = RemoteAddress(address or link.address, "unused", silent_s=NEVER_S, grace_s=NEVER_S)
        self._follower = RemoteFollower(
            where,
            secret or link.secret,
            pb.Hello(index=index, version=VERSION, host=f"machine{index}"),
            followed,
            signs=lambda: self.beat,
            on_silent=self.silent.set,
            on_grace_over=self.over.set,
            on_heard=self.back.set,
        )
        self.stop = self._follower.stop

    def next(self, kind: str) -> Any:
        """Return what comes with the next event of a kind; others are passed over."""
        while True:
            there, content = self.events.get(timeout=60.0)
            if there == kind:
                return content


@pytest.fixture(autouse=True)
def has_openssl(missing_service: Callable[[str], NoReturn]) -> None:
    if shutil.which("openssl") is None:
        missing_service("the command openssl, which makes a certificate, is not installed")


@pytest.fixture
def link() -> Iterator[RemoteLink]:
    made = RemoteLink("127.0.0.1", VERSION, silent_s=NEVER_S)
    yield made
    made.close()


@contextlib.contextmanager
def following(*followers: Follower) -> Iterator[None]:
    try:
        yield
    finally:
        for follower in followers:
            follower.stop()


def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_orders_reach_all_actors_and_what_stays_those_that_come_later(link: RemoteLink) -> None:
    early = Follower(link, 1)
    with following(early):
        until(lambda: link.connected() == [1])
        link.order(INTERRUPT)
        link.order(PAUSE, True, stays=True)
        link.drain(is_final=True)
        assert early.next(INTERRUPT) is None
        assert early.next(PAUSE) is True
        assert early.next("drain") is True
        late = Follower(link, 2)
        with following(late):
            assert late.next(PAUSE) is True, "kinds come in the order in which they were first said"
            assert late.next("drain") is True


def test_an_actor_that_comes_gets_the_newest_state_last_whatever_its_size(link: RemoteLink) -> None:
    link.offer({"weights": np.zeros(3)})
    link.drain()
    newest = np.arange(10_000_000, dtype=np.float32)  # 40 MB
    link.offer({"rl_module": {"default_policy": {"weight": newest}}, "weights_seq_no": 7})
    follower = Follower(link)
    with following(follower):
        assert follower.events.get(timeout=60.0) == ("drain", False)
        state = follower.next("state")
        assert state["weights_seq_no"] == 7
        np.testing.assert_array_equal(state["rl_module"]["default_policy"]["weight"], newest)


def test_all_are_asked_and_the_late_answer_waits_for_the_next_question_of_its_kind(link: RemoteLink) -> None:
    followers = [Follower(link, 1), Follower(link, 2)]
    may_answer, late = threading.Event(), list[Any]()

    def slow() -> dict[str, int]:
        may_answer.wait(100.0)
        return {"actions": 100}

    with following(*followers):
        until(lambda: link.connected() == [1, 2])
        both = [{"actions": 1}, {"actions": 2}]
        assert link.ask(60.0) == both
        assert link.ask(60.0, kind=ROLL_BACK, content=({"a": 1}, True)) == [("rolled", ({"a": 1}, True))] * 2
        followers[0].answer = slow
        timeout_s = 0.1
        while (answers := link.ask(timeout_s, late.append)) != both[1:]:  # a busy machine may need longer for this one, too
            assert timeout_s < 60.0, answers
            timeout_s *= 2
        followers[0].answer = lambda: both[0]
        may_answer.set()
        until(lambda: link.ask(60.0, late.append) == both and {"actions": 100} in late)
        assert late.count({"actions": 100}) == 1


def test_an_actor_that_leaves_is_not_waited_for_and_said_to_be_silent() -> None:
    silent: queue.SimpleQueue[int] = queue.SimpleQueue()
    heard: queue.SimpleQueue[int] = queue.SimpleQueue()
    link = RemoteLink("127.0.0.1", VERSION, silent_s=NEVER_S, on_silent=silent.put, on_heard=heard.put)
    try:
        follower, asked, may_end = Follower(link), threading.Event(), threading.Event()

        def never() -> None:
            asked.set()
            may_end.wait(100.0)

        until(lambda: link.connected() == [1])
        follower.answer = never
        began_s = time.monotonic()
        threading.Thread(target=lambda: asked.wait(60.0) and follower._follower._call.cancel()).start()  # type: ignore[union-attr]
        assert link.ask(90.0) == []
        assert time.monotonic() - began_s < 80.0
        assert silent.get(timeout=60.0) == 1
        may_end.set()
        assert heard.get(timeout=60.0) == 1, "it connects again"
        follower.stop()
    finally:
        link.close()


def test_an_actor_is_silent_when_its_time_is_over_and_not_a_sign_of_life_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_follower, "BEAT_S", NEVER_S)
    monkeypatch.setattr(remote_link, "BEAT_S", 0.02)
    silent: queue.SimpleQueue[float] = queue.SimpleQueue()
    link = RemoteLink("127.0.0.1", VERSION, silent_s=NEVER_S, on_silent=lambda index: silent.put(time.monotonic()))
    try:
        with following(Follower(link)):
            until(lambda: link.connected() == [1])
            due_s = time.monotonic() + 1.0
            link._silent_s = due_s - link._actors[1].heard_s
            monkeypatch.setattr(remote_link, "BEAT_S", NEVER_S)  # from the next sign of life on, which is at once
            assert silent.get(timeout=60.0) >= due_s
    finally:
        link.close()


class SlowLines(logging.Handler):
    """Log lines with some words take their time, in which the other end's next sign of life comes."""

    def __init__(self, name: str, words: str) -> None:
        super().__init__()
        self._words, self._logger = words, logging.getLogger(name)
        self.begun, self.may_end = threading.Event(), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self._words in record.getMessage():
            self.begun.set()
            self.may_end.wait(60.0)

    def __enter__(self) -> SlowLines:
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.may_end.set()
        self._logger.removeHandler(self)


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_told_last_of_an_actor_is_so_however_the_threads_fall(fails: bool) -> None:
    """An actor whose sign of life comes while its silence is told does not stay silent, nor where the daemon can't take note of it."""
    told: list[tuple[str, int]] = []

    def on_silent(index: int) -> None:
        told.append(("silent", index))
        if fails:
            raise ValueError("the daemon's")

    made = RemoteLink("127.0.0.1", VERSION, silent_s=0.5, on_silent=on_silent, on_heard=lambda index: told.append(("heard", index)))
    try:
        with SlowLines(remote_link.__name__, "is silent for") as slow:
            follower = Follower(made)
            with following(follower):
                until(lambda: made.connected() == [1])
                assert slow.begun.wait(60.0), "signs of life come once in 1 s"
                until(lambda: made.connected() == [1])
                time.sleep(0.1)
                made._silent_s = 60.0
                slow.may_end.set()
                until(lambda: ("silent", 1) in told)
                until(lambda: told[-1] == ("heard", 1))
                assert made._watch.is_alive()
    finally:
        made.close()


def nothing() -> None:
    """Do nothing."""


def plain_follower(
    where: RemoteAddress,
    secret: ActorSecret,
    on_silent: Callable[[], None],
    on_grace_over: Callable[[], None] = nothing,
    on_heard: Callable[[], None] = nothing,
) -> RemoteFollower:
    followed = Followed(lambda final: None, nothing, lambda state: None, lambda asked: None)
    hello = pb.Hello(index=1, version=VERSION, host="machine1")
    return RemoteFollower(where, secret, hello, followed, on_silent=on_silent, on_grace_over=on_grace_over, on_heard=on_heard)


def test_an_actor_that_hears_of_the_daemon_while_its_silence_is_told_does_not_take_it_for_silent(
    link: RemoteLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_follower, "BEAT_S", 0.05)
    told: list[str] = []
    where = RemoteAddress(link.address, "unused", silent_s=0.5)  # less than from one of the daemon's signs of life to the next
    with SlowLines(remote_follower.__name__, "is silent for") as slow:
        follower = plain_follower(where, link.secret, lambda: told.append("silent"), on_heard=lambda: told.append("heard"))
        try:
            assert slow.begun.wait(60.0)
            follower._where = RemoteAddress(link.address, "unused", silent_s=60.0)
            began_s = time.monotonic()
            until(lambda: follower._heard_s > began_s)
            time.sleep(0.1)
            slow.may_end.set()
            until(lambda: "silent" in told)
            until(lambda: told[-1] == "heard")
        finally:
            follower.stop()


def test_an_actor_whose_own_part_fails_at_the_daemons_silence_still_notices_what_follows(
    link: RemoteLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_follower, "BEAT_S", 0.05)
    over = threading.Event()

    def fail() -> None:
        raise ValueError("the actor's")

    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        where = RemoteAddress(address, "unused", silent_s=0.1, grace_s=0.1)
        follower = plain_follower(where, link.secret, fail, on_grace_over=over.set)
        try:
            assert over.wait(60.0)
        finally:
            follower.stop()


def test_only_who_has_the_actors_certificate_is_let_in(link: RemoteLink) -> None:
    stranger = make_identity(ACTOR)
    for actor in (stranger, Identity(link.secret.daemon_certificate, stranger.key)):
        secret = ActorSecret(actor, link.secret.daemon_certificate)
        refused = Follower(link, 1, secret=secret)
        with following(refused):
            assert link.ask(0.5) == []
            assert link.connected() == []
    options = [("grpc.ssl_target_name_override", DAEMON), *DIRECT]
    for credentials in (grpc.ssl_channel_credentials(link.secret.daemon_certificate), None):
        opened = (
            grpc.secure_channel(link.address, credentials, [*options, *DIRECT])
            if credentials
            else grpc.insecure_channel(link.address, DIRECT)
        )
        with opened as channel, pytest.raises(grpc.RpcError) as error:
            next(service.DriverLinkStub(channel).Follow(iter([pb.ActorMessage(hello=pb.Hello(index=1, version=VERSION))]), timeout=60.0))
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE


def test_an_actor_follows_no_other_daemon(link: RemoteLink) -> None:
    other = RemoteLink("127.0.0.1", VERSION, silent_s=NEVER_S)
    try:
        follower = Follower(other, secret=link.secret)
        with following(follower):
            assert other.ask(0.5) == []
            assert not follower.gone.is_set()
    finally:
        other.close()


def told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what was logged of both ends, and not of what an earlier test has left for the collector."""
    return [record for record in caplog.records if record.name in (remote_follower.__name__, remote_link.__name__)]


def test_another_version_is_refused_with_both(caplog: pytest.LogCaptureFixture) -> None:
    link = RemoteLink("127.0.0.1", "2.0 (sources def)", silent_s=NEVER_S)
    try:
        with caplog.at_level(logging.ERROR), following(Follower(link)):
            until(lambda: len(told(caplog)) >= 2)
            assert link.connected() == []
            time.sleep(3.5 * remote_link.BEAT_S)  # it asks again
        assert sorted(record.name for record in told(caplog)) == [remote_follower.__name__, remote_link.__name__], "once at each end"
        for text in (record.getMessage() for record in told(caplog)):
            assert "machine1" in text
            assert VERSION in text
            assert "2.0 (sources def)" in text
    finally:
        link.close()


def test_the_daemons_end_is_noticed_at_once(link: RemoteLink) -> None:
    follower = Follower(link)
    with following(follower):
        until(lambda: link.connected() == [1])
        link.close()
        link.close()
        assert follower.gone.wait(60.0), "which is less than silence takes"
        assert not follower.silent.is_set()


def test_addresses_of_all_actors_reach_all_of_them(link: RemoteLink) -> None:
    followers = [Follower(link, 1), Follower(link, 2)]
    with following(*followers):
        for follower, port in zip(followers, (9900, 9901), strict=True):
            follower.beat = pb.Beat(addresses=[f"10.0.0.1:{port}"], episodes_open=port)
        for follower in followers:
            until(lambda follower=follower: follower.next(ENDPOINTS) == {"10.0.0.1:9900": 9900, "10.0.0.1:9901": 9901})  # type: ignore[misc]
        followers[0].beat = pb.Beat(addresses=["10.0.0.1:9900"], episodes_open=3)
        until(lambda: followers[1].next(ENDPOINTS) == {"10.0.0.1:9900": 3, "10.0.0.1:9901": 9901})


def test_an_actor_that_ends_for_good_is_missed_no_more_and_its_successor_is_known(caplog: pytest.LogCaptureFixture) -> None:
    silent: list[int] = []
    link = RemoteLink("127.0.0.1", VERSION, silent_s=NEVER_S, on_silent=silent.append)
    try:
        first, second = Follower(link, 1), Follower(link, 2)
        for follower, port in ((first, 9900), (second, 9901)):
            follower.beat = pb.Beat(addresses=[f"10.0.0.1:{port}"], episodes_open=1)
        both = {"10.0.0.1:9900": 1, "10.0.0.1:9901": 1}
        with following(first):
            with following(second):
                until(lambda: first.next(ENDPOINTS) == both)
                link.release(2)
                assert first.next(ENDPOINTS) == {"10.0.0.1:9900": 1}
            until(lambda: link.connected() == [1])
            assert (silent, [each for each in told(caplog) if each.levelno >= logging.WARNING]) == ([], [])
            again = Follower(link, 2)
            again.beat = pb.Beat(addresses=["10.0.0.1:9901"], episodes_open=1)
            with following(again):
                until(lambda: first.next(ENDPOINTS) == both)
            until(lambda: silent == [2])
    finally:
        link.close()


def test_a_sign_of_life_that_is_read_after_its_actor_has_ended_for_good_lists_it_no_more(link: RemoteLink) -> None:
    with following(first := Follower(link, 1)):
        with following(Follower(link, 2)):
            until(lambda: link.connected() == [1, 2])
            gone = link._actors[2]
            link.release(2)
        until(lambda: 2 not in link._actors)
        first.beat = pb.Beat(addresses=["10.0.0.1:9900"], episodes_open=1)
        link._tell_endpoints(gone, pb.Beat(addresses=["10.0.0.1:9901"], episodes_open=1))  # as the thread does that reads them
        assert first.next(ENDPOINTS) == {"10.0.0.1:9900": 1}


def test_clients_are_not_told_of_an_actor_that_is_built_and_not_taken_up(link: RemoteLink) -> None:
    link.keep(ACTORS, 1)
    first = Follower(link, 1)
    with following(first):
        first.beat = pb.Beat(addresses=["10.0.0.1:9900"], episodes_open=0)
        assert first.next(ENDPOINTS) == {"10.0.0.1:9900": 0}
        second = Follower(link, 2)
        with following(second):
            second.beat = pb.Beat(addresses=["10.0.0.1:9901"], episodes_open=0)
            until(lambda: 2 in link._addresses)
            assert first.next(ENDPOINTS) == {"10.0.0.1:9900": 0}
            link.order(ACTORS, 2, stays=True)
            until(lambda: first.next(ENDPOINTS) == {"10.0.0.1:9900": 0, "10.0.0.1:9901": 0})


def test_a_follower_without_a_daemon_says_that_it_is_gone(link: RemoteLink) -> None:
    follower = Follower(link, address=free_address())
    with following(follower):
        assert follower.gone.wait(60.0)


def test_without_openssl_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NoCertificateError, match="openssl"):
        RemoteLink("127.0.0.1", VERSION)
