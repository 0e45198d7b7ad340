"""A serving loop that is cut off from its daemon: real link, loop, clients and health service, with a short grace.

What is recorded meanwhile is in one counter, each ended episode is told once, and afterwards all goes on as before.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Self

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from policyserver.client import PolicyClient
from policyserver.common.tensors import to_tensor
from policyserver.server.config.link_address import RemoteAddress
from policyserver.server.daemon.reported_once import ReportedOnce
from policyserver.server.processes import remote_follower, remote_link
from policyserver.server.processes.link import ASK, Followed
from policyserver.server.processes.remote_follower import RemoteFollower
from policyserver.server.processes.remote_link import RemoteLink
from policyserver.v1 import driver_link_pb2 as link_pb
from policyserver.v1 import policy_service_pb2 as pb
from tests.cuttable import CuttableWire
from tests.server.core_harness import observation
from tests.server.serving_loop_harness import ServingLoopHarness, Unary, refused_start
from tests.services import wait_until

pytestmark = [pytest.mark.process, pytest.mark.long]

SILENT_S, GRACE_S = 0.6, 1.0
TICK_S = 0.02
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Clock:
    """What both ends of the link take the time from: it goes on only as a thread of this process does, and can be held.

    So nobody is silent because the machine stood still, and a test may do as much as it likes before the next silence is noticed.
    """

    def __init__(self) -> None:
        self._now_s, self._goes, self._over = 0.0, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock")

    def monotonic(self) -> float:
        return self._now_s

    def __enter__(self) -> Self:
        self._goes.set()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._goes.set()
        self._thread.join()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no time go by meanwhile."""
        self._goes.clear()
        yield
        self._goes.set()

    def _run(self) -> None:
        while not self._over.wait(TICK_S):
            if self._goes.is_set():
                self._now_s += TICK_S


class Cluster:
    """A daemon's link, a wire that can be cut, and the serving loop at its other end."""

    def __init__(self, serve: ServingLoopHarness, link: RemoteLink, wire: CuttableWire, clock: Clock) -> None:
        self.serve, self.link, self.wire, self.clock = serve, link, wire, clock
        self.once = ReportedOnce(link)
        loop = serve.serving_loop
        self.follower = RemoteFollower(
            RemoteAddress(wire.address, "unused", silent_s=SILENT_S, grace_s=GRACE_S),
            link.secret,
            link_pb.Hello(index=1, version="1", host="machine1", boot_id=loop.boot_id),
            Followed(lambda final: None, lambda: None, lambda state: None, lambda told: loop.report(told, explores=True)),
            on_silent=loop.daemon_is_silent,
            on_grace_over=loop.daemon_is_away,
            on_heard=loop.daemon_is_back,
        )
        self.health = health_pb2_grpc.HealthStub(serve.channel())

    def says(self) -> int:
        """Return what the health service says."""
        return int(self.health.Check(health_pb2.HealthCheckRequest()).status)

    def told(self) -> list[str]:
        """Ask as the daemon does, and return the episodes that are new to it."""
        reports: list[Any] = []
        reports += self.once.ask(30.0, reports.append)
        return [name for report in reports for name in report.episodes.get("episode", [])]

    def is_connected(self) -> bool:
        return self.link.connected() == [1]


@pytest.fixture
def cluster(serve: ServingLoopHarness, monkeypatch: pytest.MonkeyPatch, missing_service: Callable[[str], NoReturn]) -> Iterator[Cluster]:
    if shutil.which("openssl") is None:
        missing_service("the command openssl, which makes a certificate, is not installed")
    with Clock() as clock:
        for module in (remote_link, remote_follower):
            monkeypatch.setattr(module, "BEAT_S", 0.1)
            monkeypatch.setattr(module, "time", clock)
        link = RemoteLink("127.0.0.1", "1", silent_s=SILENT_S)
        try:
            with CuttableWire(link.address) as wire:
                made = Cluster(serve, link, wire, clock)
                try:
                    wait_until(made.is_connected, "the actor")
                    yield made
                finally:
                    made.follower.stop()
        finally:
            link.close()


def step(client: PolicyClient, episode: str) -> bool:
    """Take a step, and return whether its answer was stale."""
    client.get_actions([episode], observation()[None])
    client.log_returns(episode, 1.0)
    return bool(client.answered_stale()[0])


def test_a_cut_is_told_to_clients_then_ends_starts_and_is_over_when_it_heals(cluster: Cluster) -> None:
    client, unary = cluster.serve.client(), Unary(cluster.serve.stub())
    episode, plain = client.start_episode("open"), unary.start("plain")
    for _ in range(3):
        assert not step(client, episode)
    assert not client.server_info().stale
    assert not client.stale_runners

    cluster.wire.cut()
    cut_s = cluster.clock.monotonic()
    wait_until(lambda: step(client, episode), "the mark")
    with cluster.clock.held():
        assert cluster.says() == SERVING, "it serves its last version for a while"
        assert client.server_info().stale
        assert client.stale_runners == (cluster.serve.address,)
        assert client.counters().rows_stale >= 1
        reply = unary.stub.GetAction(pb.GetActionRequest(episode_id=plain, observation=[to_tensor(observation())]))
        assert reply.stale
        began = client.start_episode("within the grace")
        assert step(client, began)

    wait_until(lambda: cluster.says() == NOT_SERVING, "the end of the grace")
    assert cluster.clock.monotonic() - cut_s >= GRACE_S
    error = refused_start(client)
    assert (error.reason, "ray.partition_grace_s" in str(error)) == ("SHUTTING_DOWN", True)
    assert step(client, episode), "what is open goes on"

    cluster.wire.heal()
    wait_until(lambda: cluster.says() == SERVING, "the heal")
    wait_until(cluster.is_connected, "the actor")
    assert not step(client, episode)
    assert not client.server_info().stale
    assert not client.stale_runners
    assert not step(client, client.start_episode("afterwards"))


def test_each_step_and_each_episode_counts_once(cluster: Cluster) -> None:
    client, played = cluster.serve.client(), 0

    def play(name: str, steps: int) -> None:
        nonlocal played
        episode = client.start_episode(name)
        for _ in range(steps):
            step(client, episode)
        client.end_episode(episode, observation())
        played += steps

    play("before", 3)
    assert cluster.told() == ["before"]
    open_one = client.start_episode("across")
    step(client, open_one)
    step(client, open_one)
    with cluster.clock.held():
        cluster.wire.cut()
        play("unnoticed", 4)
    # The daemon asks in the cut: nothing of it arrives, and what is answered afterwards is of the next question.
    assert cluster.link.ask(0.1, kind=ASK) == []
    wait_until(lambda: client.server_info().stale, "the mark")
    play("within", 5)
    step(client, open_one)
    cluster.wire.heal()
    wait_until(cluster.is_connected, "the actor")
    wait_until(lambda: not client.server_info().stale, "the heal")
    assert cluster.serve.serving_loop.sample(10**6, 0.01) == [], "the learner asks again, for more than there is"
    step(client, open_one)
    client.end_episode(open_one, observation())
    played += 4
    play("after", 2)

    assert cluster.told() == ["unnoticed", "within", "across", "after"]
    assert cluster.told() == []
    handed_off = sum(len(segment) for segment in cluster.serve.segments(12))
    stats = client.stats()
    assert stats.steps_completed == played == handed_off + stats.steps_cut_off
    assert (stats.steps_handed_off, stats.steps_cut_off) == (handed_off, 5 + 1)
    assert (stats.steps_waiting, stats.steps_paused, stats.steps_dropped) == (0, 0, 0)
    assert stats.daemon_silent_s == 0.0


def test_an_answer_that_is_lost_in_the_cut_loses_no_episode(cluster: Cluster) -> None:
    client = cluster.serve.client()

    def play(name: str) -> None:
        episode = client.start_episode(name)
        step(client, episode)
        client.end_episode(episode, observation())

    play("a")
    report = cluster.serve.serving_loop.report({}, explores=True)
    assert report.episodes["episode"] == ["a"], "it is answered, and the answer is lost"
    play("b")
    assert cluster.told() == ["a", "b"]
    play("c")
    assert cluster.told() == ["c"]
    assert cluster.told() == []


def test_the_call_that_waited_through_a_cut_gets_nothing_and_what_follows_does(cluster: Cluster) -> None:
    loop, client = cluster.serve.serving_loop, cluster.serve.client()
    assert not loop.takes_old_call()
    cluster.wire.cut()
    wait_until(lambda: client.server_info().stale, "the mark")
    assert not loop.takes_old_call(), "it waits, and gets nothing"
    cluster.wire.heal()
    wait_until(lambda: not client.server_info().stale, "the heal")
    assert loop.takes_old_call(), "it may be from before the cut"
    assert not loop.takes_old_call()


def test_a_process_that_was_replaced_while_it_was_silent_is_sent_away(cluster: Cluster) -> None:
    gone: list[str] = []

    def follower(boot_id: str) -> RemoteFollower:
        return RemoteFollower(
            RemoteAddress(cluster.link.address, "unused", silent_s=30.0, grace_s=30.0),
            cluster.link.secret,
            link_pb.Hello(index=1, version="1", host="machine2", boot_id=boot_id),
            Followed(lambda final: None, lambda: gone.append(boot_id), lambda state: None, lambda told: {"boot_id": boot_id}),
        )

    cluster.wire.cut()
    wait_until(lambda: not cluster.is_connected(), "the silence")
    successor = follower("its successor")
    try:
        wait_until(cluster.is_connected, "the successor")
        assert cluster.link.ask(30.0) == [{"boot_id": "its successor"}]
        old = follower(cluster.serve.serving_loop.boot_id)
        try:
            wait_until(lambda: gone == [cluster.serve.serving_loop.boot_id], "the end of the old process")
        finally:
            old.stop()
        assert cluster.link.ask(30.0) == [{"boot_id": "its successor"}], "which nobody has disturbed"
    finally:
        successor.stop()
