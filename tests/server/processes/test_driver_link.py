"""The daemon's drain, state and questions reach every serving actor, and the end of the link is the end of the daemon."""

from __future__ import annotations

import gc
import logging
import os
import queue
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.server.daemon.folder_lock import FolderInUseError, FolderLock
from policyserver.server.processes import driver_link, linked_actor
from policyserver.server.processes.driver_link import DriverLink, follow_driver
from tests.descriptors import open_descriptors

HOLD = """
import sys, pathlib
from policyserver.server.processes.driver_link import DriverLink
from policyserver.server.daemon.folder_lock import FolderLock
held = FolderLock(pathlib.Path(sys.argv[1])), DriverLink(pathlib.Path(sys.argv[1]) / "link")
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdin.read()
"""

FOLLOW = """
import pathlib, sys, threading
from policyserver.server.processes.driver_link import follow_driver
follow_driver(pathlib.Path(sys.argv[1]), lambda _: None, lambda: None, lambda _: None, lambda _: {"actions": 2})
threading.Event().wait()
"""
MORE_THAN_A_BUFFER = bytes(1_000_000)


class Follower:
    def __init__(self, path: Path) -> None:
        self.draining, self.gone = threading.Event(), threading.Event()
        self.drains: list[bool] = []
        """Whether each was said to be final."""
        self.states: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.answer: Callable[[], Any] = lambda: {"actions": 1}
        self.stop = follow_driver(path, self._drain, self.gone.set, self.states.put, lambda asked: self.answer())

    def _drain(self, is_final: bool = False) -> None:
        self.drains.append(is_final)
        self.draining.set()


def test_draining_reaches_every_follower_also_one_that_comes_later(tmp_path: Path) -> None:
    link = DriverLink(tmp_path / "link")
    early = Follower(link.path)
    link.drain()
    late = Follower(link.path)
    assert early.draining.wait(60.0)
    assert late.draining.wait(60.0)
    early.stop()
    late.stop()
    link.close()
    assert not early.gone.is_set()
    assert not late.gone.is_set()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what a thread or a process of the link does."""
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ask_until(link: DriverLink, expected: list[Any]) -> None:
    """Ask until these have answered in time, and nobody else: a busy machine may need longer than a moment for that."""
    timeout_s = 0.01
    while (answers := sorted(link.ask(timeout_s), key=str)) != expected:
        assert timeout_s < 60.0, answers
        timeout_s *= 2


def test_actors_connect_again_once_the_daemon_may_open_files_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(driver_link, "_REST_S", 0.02)
    link = DriverLink(tmp_path / "link")
    link.drain()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as actor:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(actor.fileno())
        os.close(free)
        gc.disable()  # an earlier test's sockets, which it would close, have lower numbers
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            actor.connect(str(link.path))
            until(lambda: "no serving actor can connect" in caplog.text)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            gc.enable()
        late = Follower(link.path)
        assert late.draining.wait(60.0)
    late.stop()
    link.close()
    refused, over = [record.getMessage() for record in caplog.records if record.name == driver_link.__name__]
    assert "no serving actor can connect to the daemon now" in refused
    assert "Too many open files" in refused
    assert over == "serving actors can connect to the daemon again"


@pytest.mark.parametrize("missing", [0, 1], ids=["that sends", "that reads"])
def test_actors_connect_again_once_the_daemon_may_start_threads_again(
    missing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(driver_link, "_REST_S", 0.02)
    link = DriverLink(tmp_path / "link")
    link.drain()
    before, starts, start = open_descriptors(), [False] * missing + [True], threading.Thread.start

    def fails_once(thread: threading.Thread) -> None:
        if thread.name.startswith("driver-link") and starts and starts.pop(0):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fails_once)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as actor:
        actor.connect(str(link.path))
        while actor.recv(1024):  # to the end of the stream, at which an actor leaves
            pass
    until(lambda: not open_descriptors() - before)
    late = Follower(link.path)
    assert late.draining.wait(60.0)
    late.stop()
    link.close()
    assert "can't start new thread" in caplog.text


@pytest.mark.long
@pytest.mark.parametrize("asks", [False, True])
def test_an_actor_that_died_leaves_no_descriptor_behind(tmp_path: Path, asks: bool) -> None:
    link = DriverLink(tmp_path / "link")
    before = open_descriptors()
    for _ in range(20):
        follower = Follower(link.path)
        if asks:
            while link.ask(60.0) != [{"actions": 1}]:  # until it is there
                pass
        follower.stop()
    last = Follower(link.path)
    while link.ask(60.0) != [{"actions": 1}]:
        pass
    until(lambda: len(open_descriptors() - before) <= 4)  # else one for each actor that died
    last.stop()
    until(lambda: not open_descriptors() - before)
    assert link.ask(60.0) == []
    link.close()


@pytest.mark.parametrize("is_final", [False, True])
def test_whether_the_end_is_final_reaches_every_follower_also_one_that_comes_later(tmp_path: Path, is_final: bool) -> None:
    link = DriverLink(tmp_path / "link")
    early = Follower(link.path)
    link.drain(is_final=is_final)
    late = Follower(link.path)
    for follower in (early, late):
        assert follower.draining.wait(60.0)
        follower.stop()
    link.close()
    assert (early.drains, late.drains) == ([is_final], [is_final])


@pytest.mark.long
def test_who_connects_gets_the_newest_state_whatever_its_size(tmp_path: Path) -> None:
    link = DriverLink(tmp_path / "link")
    link.offer({"weights": np.zeros(3)})
    before = Follower(link.path)
    assert before.states.get(timeout=60.0)["weights"].tolist() == [0, 0, 0]  # from here on it is one that was there
    newest = np.arange(3_000_000, dtype=np.float32)
    link.offer({"weights": newest, "weights_seq_no": 7})
    link.drain()
    after = Follower(link.path)
    state = after.states.get(timeout=60.0)
    assert state["weights_seq_no"] == 7
    np.testing.assert_array_equal(state["weights"], newest)
    assert after.draining.wait(60.0)
    assert before.draining.wait(60.0)
    assert before.states.empty(), "an actor that was there has its weights from RLlib"
    before.stop()
    after.stop()
    link.close()


def test_an_actor_that_fails_to_follow_does_not_take_the_daemon_for_gone(tmp_path: Path) -> None:
    link = DriverLink(tmp_path / "link")
    link.offer({"weights": np.zeros(3)})
    tried, draining, gone = threading.Event(), threading.Event(), threading.Event()

    def fail(state: dict[str, Any]) -> None:
        tried.set()
        raise OSError("the port is in use")

    stop = follow_driver(link.path, lambda *_: draining.set(), gone.set, fail, lambda asked: {})
    try:
        assert tried.wait(60.0)
        link.drain()  # not before, for who connects is told of the drain first and of the state last
        assert draining.wait(60.0), "what comes after the failure is still heard"
        assert not gone.is_set()
    finally:
        stop()
        link.close()


def test_a_signal_in_the_middle_of_an_offer_drains_at_once(tmp_path: Path) -> None:
    link = DriverLink(tmp_path / "link")
    follower = Follower(link.path)
    before = signal.signal(signal.SIGUSR1, lambda *_: link.drain())
    try:
        with link._lock:  # as `offer` holds it
            signal.raise_signal(signal.SIGUSR1)
        assert follower.draining.wait(60.0)
    finally:
        signal.signal(signal.SIGUSR1, before)
        follower.stop()
        link.close()


@pytest.mark.long
def test_all_are_asked_and_who_answers_late_or_not_at_all_is_left_out(tmp_path: Path) -> None:
    link = DriverLink(tmp_path / "link")
    followers = [Follower(link.path) for _ in range(3)]
    may_answer, text = threading.Event(), "x" * 200_000
    try:
        for number, follower in enumerate(followers):
            follower.answer = lambda number=number: {"actions": number, "text": text}  # type: ignore[misc]

        def late() -> dict[str, int]:
            assert may_answer.wait(100.0)
            return {"actions": 100}

        link.drain()
        assert all(follower.draining.wait(60.0) for follower in followers), "so all connections are accepted"
        assert sorted(answer["actions"] for answer in link.ask(60.0)) == [0, 1, 2]
        followers[1].answer = late
        ask_until(link, [{"actions": number, "text": text} for number in (0, 2)])
        followers[1].answer = lambda: {"actions": 1}
        may_answer.set()
        assert sorted(answer["actions"] for answer in link.ask(60.0)) == [0, 1, 2], "what comes late is no answer to the next question"
        followers[0].stop()
        assert sorted(answer["actions"] for answer in link.ask(60.0)) == [1, 2]
    finally:
        may_answer.set()
        for follower in followers:
            follower.stop()
        link.close()
    assert link.ask(0.1) == []


def test_a_daemon_that_dies_in_the_middle_of_a_message_is_gone(tmp_path: Path) -> None:
    states: list[dict[str, Any]] = []
    gone = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "link"))
        listener.listen()
        stop = follow_driver(tmp_path / "link", lambda *_: None, gone.set, states.append, lambda asked: {})
        connection, _ = listener.accept()
        connection.sendall(struct.pack("!i", 1000) + b"cut")
        connection.close()
        assert gone.wait(60.0)
    stop()
    assert states == []


def test_the_end_of_the_link_is_the_end_of_the_daemon(tmp_path: Path) -> None:
    link = DriverLink(tmp_path / "link")
    follower = Follower(link.path)
    link.drain()
    assert follower.draining.wait(60.0)  # so the connection is accepted
    link.close()
    link.close()
    assert follower.gone.wait(60.0)
    follower.stop()
    follower.stop()


def test_a_follower_without_a_daemon_follows_nothing(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "nothing")
    follower.stop()
    assert not follower.gone.is_set()


@pytest.mark.process
def test_a_killed_daemon_is_noticed_and_gives_its_folder_back(tmp_path: Path) -> None:
    daemon = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert daemon.stdin is not None
    assert daemon.stdout is not None
    with daemon.stdin, daemon.stdout:
        assert daemon.stdout.readline() == b"ready\n"
        with pytest.raises(FolderInUseError, match="in use by another process"):
            FolderLock(tmp_path)
        follower = Follower(tmp_path / "link")
        daemon.send_signal(signal.SIGKILL)
        assert follower.gone.wait(60.0)
        assert daemon.wait(60.0) == -signal.SIGKILL
    follower.stop()
    lock = FolderLock(tmp_path)
    lock.release()
    lock.release()
    FolderLock(tmp_path).release()


@pytest.mark.long
def test_a_late_answer_waits_for_the_next_question_of_its_kind(tmp_path: Path) -> None:
    link = DriverLink(tmp_path / "link")
    may_answer, late = threading.Event(), list[Any]()

    def slow_at_first(_: Any) -> dict[str, int]:
        return {"actions": 1 + may_answer.wait(100.0)}

    stop = follow_driver(link.path, lambda _: None, lambda: None, lambda _: None, slow_at_first, questions={"other": lambda asked: asked})
    try:
        while link.ask(60.0, kind="other", content=5) != [5]:  # until it is there
            pass
        assert link.ask(0.1) == []
        may_answer.set()
        assert link.ask(60.0, late.append, kind="other", content=6) == [6]
        assert late == [], "an answer to another question is of another form"
        assert link.ask(60.0, late.append) == [{"actions": 2}]
        assert late == [{"actions": 2}]
    finally:
        stop()
        link.close()


def test_an_actor_that_does_not_read_holds_up_nobody_and_is_told_all_once_it_reads_again(tmp_path: Path) -> None:
    link = DriverLink(tmp_path / "link")
    reads_on, told = threading.Event(), queue.SimpleQueue[int]()
    orders: dict[str, Callable[[Any], Any]] = {"read no more": lambda _: reads_on.wait(100.0), "tell": told.put}
    stop = follow_driver(link.path, lambda _: None, lambda: None, lambda _: None, lambda _: {"actions": 2}, orders)
    other = Follower(link.path)
    try:
        until(lambda: len(link.ask(60.0)) == 2)
        begun = time.monotonic()
        link.order("read no more")
        link.order("large", MORE_THAN_A_BUFFER)
        for number in range(20):
            link.order("tell", number)
        ask_until(link, [{"actions": 1}])
        link.drain()
        assert other.draining.wait(60.0)
        assert time.monotonic() - begun < 60.0, "each took 5 s"
        reads_on.set()
        assert [told.get(timeout=60.0) for _ in range(20)] == list(range(20))
        assert len(link.ask(60.0)) == 2
    finally:
        reads_on.set()
        stop()
        other.stop()
        link.close()


@pytest.mark.process
def test_a_process_that_reads_no_more_is_ended_and_the_one_in_its_place_is_told_what_stands(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    link = DriverLink(tmp_path / "link", stuck_s=0.1)
    other = Follower(link.path)
    command = [sys.executable, "-c", FOLLOW, str(link.path)]
    actor = subprocess.Popen(command)
    try:
        until(lambda: len(link.ask(60.0)) == 2)
        (others,) = [each for each in link._actors if each._process is None]
        # Its thread in this process may have to wait for a processor for longer than that.
        others._line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
        actor.send_signal(signal.SIGSTOP)
        link.order("large", MORE_THAN_A_BUFFER)
        link.drain()
        assert actor.wait(60.0) == -signal.SIGKILL, "so that Ray starts another"
        until(lambda: link.ask(60.0) == [{"actions": 1}])
        successor = Follower(link.path)
        assert successor.draining.wait(60.0)
        successor.stop()
        assert not other.gone.is_set()
        told = [record.getMessage() for record in caplog.records if record.name in (linked_actor.__name__, driver_link.__name__)]
        assert [f"process {actor.pid} has taken nothing" in text for text in told] == [True], "which is no planned death, and is told once"
    finally:
        actor.kill()
        actor.wait()
        other.stop()
        link.close()


def test_what_waits_for_an_actor_is_bounded_and_more_is_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linked_actor, "_MOST_WAITING", 5)
    link = DriverLink(tmp_path / "link")
    reads_on = threading.Event()
    follower = Follower(link.path)
    try:
        until(lambda: link.ask(60.0) == [{"actions": 1}])
        follower.answer = lambda: reads_on.wait(100.0)
        link.ask(0.0)
        for _ in range(7):  # the first ones are on their way
            link.order("large", MORE_THAN_A_BUFFER)
        until(lambda: not link._actors)
        reads_on.set()
        assert follower.gone.wait(60.0), "to the actor it is the daemon's end, at which it leaves"
    finally:
        reads_on.set()
        follower.stop()
        link.close()


class Unreadable:
    """What can be pickled, and not be read again."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


def test_an_answer_that_can_not_be_read_is_the_end_of_nothing(tmp_path: Path) -> None:
    link = DriverLink(tmp_path / "link")
    answers: list[Any] = [Unreadable(), {"actions": 1}]
    follower = Follower(link.path)
    follower.answer = lambda: answers.pop(0)
    try:
        until(lambda: bool(link._actors))
        assert link.ask(0.05) == []
        assert link.ask(60.0) == [{"actions": 1}]
    finally:
        follower.stop()
        link.close()
