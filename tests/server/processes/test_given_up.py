"""A process whose node Ray has given up is not let in again: Ray is about to end it, and clients would begin episodes there."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import NoReturn

import grpc
import pytest

from policyserver.common.channels import open_channel
from policyserver.server.config.link_address import RemoteAddress
from policyserver.server.processes.link import Followed
from policyserver.server.processes.link_secret import DAEMON
from policyserver.server.processes.remote_follower import RemoteFollower
from policyserver.server.processes.remote_link import RemoteLink
from policyserver.v1 import driver_link_pb2 as pb
from policyserver.v1 import driver_link_pb2_grpc as service

pytestmark = [pytest.mark.process, pytest.mark.long]

VERSION = "1.0 (sources abc)"
WAIT_S = 60.0
NEVER_S = 600.0
"""A machine that stands still for some seconds is no silence."""


class Link:
    """A link that is told which nodes are given up, and what it tells of actors."""

    def __init__(self, silent_s: float = NEVER_S) -> None:
        self.given_up: set[str] = set()
        self.asked: list[str] = []
        self.silent, self.heard = threading.Event(), threading.Event()
        self._followers: list[RemoteFollower] = []
        self.link = RemoteLink(
            "127.0.0.1",
            VERSION,
            silent_s=silent_s,
            on_silent=lambda index: self.silent.set(),
            on_heard=lambda index: self.heard.set(),
            is_given_up=self._is_given_up,
        )

    def _is_given_up(self, node_id: str) -> bool:
        self.asked.append(node_id)
        return node_id in self.given_up

    def follower(self, boot_id: str, gone: threading.Event, index: int = 1) -> RemoteFollower:
        followed = Followed(lambda is_final: None, gone.set, lambda state: None, lambda asked: None)
        hello = pb.Hello(index=index, version=VERSION, host="machine", boot_id=boot_id, node_id="node")
        where = RemoteAddress(self.link.address, "unused", silent_s=NEVER_S, grace_s=NEVER_S)
        self._followers.append(RemoteFollower(where, self.link.secret, hello, followed))
        return self._followers[-1]

    def close(self) -> None:
        """End both ends: a follower's thread would tell later tests that its daemon is silent."""
        for follower in self._followers:
            follower.stop()
        self.link.close()


@pytest.fixture
def has_openssl(missing_service: Callable[[str], NoReturn]) -> None:
    if shutil.which("openssl") is None:
        missing_service("the command openssl, which makes a certificate, is not installed")


@pytest.fixture
def link(has_openssl: None) -> Iterator[Link]:
    made = Link()
    yield made
    made.close()


def is_connected(link: Link, gone: threading.Event) -> bool:
    """Wait until the actor is there, or is sent away."""
    waited = threading.Event()
    for _ in range(int(WAIT_S / 0.05)):
        if link.link.connected() or gone.is_set():
            break
        waited.wait(0.05)
    return bool(link.link.connected())


def test_it_is_sent_away_when_it_comes_back_and_stays_away(link: Link) -> None:
    link.given_up.add("node")
    gone = threading.Event()
    first = link.follower("a", gone)
    assert is_connected(link, gone)
    assert link.asked == [], "Ray is not asked of an actor that begins"
    first.stop()
    assert link.silent.wait(WAIT_S)
    link.follower("a", gone)
    assert gone.wait(WAIT_S)
    assert not link.heard.is_set(), "the daemon does not take it for one that is back"
    link.given_up.clear()
    gone.clear()
    link.follower("a", gone)
    assert gone.wait(WAIT_S)


def test_one_whose_node_was_only_cut_off_is_let_in(link: Link) -> None:
    gone = threading.Event()
    first = link.follower("a", gone)
    assert is_connected(link, gone)
    first.stop()
    assert link.silent.wait(WAIT_S)
    link.follower("a", gone)
    assert link.heard.wait(WAIT_S)
    assert not gone.is_set()


def test_what_a_silent_one_had_sent_does_not_bring_it_back(has_openssl: None) -> None:
    link, may_beat = Link(silent_s=2.0), threading.Event()

    def messages() -> Iterator[pb.ActorMessage]:
        yield pb.ActorMessage(hello=pb.Hello(index=1, version=VERSION, boot_id="a", node_id="node"))
        may_beat.wait(WAIT_S)
        yield pb.ActorMessage(beat=pb.Beat())

    options: list[tuple[str, int | str]] = [("grpc.ssl_target_name_override", DAEMON), ("grpc.enable_http_proxy", 0)]
    with closing(link), open_channel(link.link.address, options, link.link.secret.credentials()) as channel:
        call = service.DriverLinkStub(channel).Follow(messages())
        with suppress(grpc.RpcError):
            list(call)  # it ends, or this test does not
        may_beat.set()
        assert link.silent.wait(WAIT_S)
        assert not link.heard.is_set()
        assert link.link.connected() == []
