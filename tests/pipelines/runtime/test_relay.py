"""A thread that passes events on handles them itself where the next node may be lent and rests; what a node promises holds then, too."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from policyserver.pipelines.runtime.inbox import NodeConfig, NodeFailedError
from policyserver.pipelines.runtime.node import Node

WAIT_S = 60.0


class Handler(Node[int]):
    """Notes which thread handled what; `on_batch` is called for each batch."""

    def __init__(self, name: str, on_batch: Callable[[list[int]], None] = lambda batch: None, **arguments: Any) -> None:
        super().__init__(name, **arguments)
        self.on_batch = on_batch
        self.handled: list[tuple[int, str]] = []
        self.stopped_on: list[str] = []
        self._is_busy = threading.Lock()

    def _process(self, batch: list[int]) -> None:
        assert self._is_busy.acquire(blocking=False), f"{self.name} is handled by two threads at once"
        try:
            self.handled += [(event, threading.current_thread().name) for event in batch]
            self.on_batch(list(batch))
        finally:
            self._is_busy.release()

    def _stop(self) -> None:
        self.stopped_on.append(threading.current_thread().name)


class Lent(Handler):
    """One that may be lent."""

    is_lent = True


class Notes:
    """A supervisor that writes failures down."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, str, list[int], bool, str]] = []

    def node_failed(self, node: Node[Any], error: BaseException, in_hand: Sequence[int], *, restarts: bool) -> None:
        self.failures.append((node.name, str(error), list(in_hand), restarts, threading.current_thread().name))

    def events_dropped(self, node: Node[Any], events: Sequence[int]) -> None:
        raise AssertionError("nothing is dropped here")


def at_rest(*nodes: Node[int]) -> None:
    """Start the nodes and wait until their threads wait for events."""
    for node in nodes:
        node.start()
    rest(*nodes)


def rest(*nodes: Node[int]) -> None:
    """Wait until the nodes' threads wait for events: each has handled what it was lent, too, which a flush does not wait for."""
    for node in nodes:
        while not node.inbox.is_waiting:
            time.sleep(0.001)


def stop(*nodes: Node[int]) -> None:
    for node in nodes:
        assert node.stop(WAIT_S)


def test_a_batch_is_handled_by_the_thread_that_brought_it_until_a_node_that_waits() -> None:
    last = Handler("last")
    third = Lent("third", last.push_many)
    second = Lent("second", third.push_many)
    first = Handler("first", second.push_many)
    at_rest(first, second, third, last)
    first.push_many([7])
    rest(first)
    stop(first, second, third, last)
    assert second.handled == third.handled == [(7, "first")]
    assert last.handled == [(7, "last")]
    assert [node.statistics().processed for node in (first, second, third, last)] == [1, 1, 1, 1]
    assert second.stopped_on == ["second"]


def test_a_push_from_outside_wakes_the_node_s_own_thread() -> None:
    node = Lent("node")
    at_rest(node)
    node.push_many([1])
    stop(node)
    assert node.handled == [(1, "node")]


def test_a_thread_whose_own_node_has_events_takes_no_other() -> None:
    second = Lent("second")

    def both(batch: list[int]) -> None:
        if batch == [0]:
            first.push_many([1])
            second.push_many([0])

    first = Handler("first", both)
    at_rest(first, second)
    first.push_many([0])
    rest(first)
    stop(first, second)
    assert second.handled == [(0, "second")]
    assert [event for event, _ in first.handled] == [0, 1]


def test_one_node_at_a_time_is_lent_to_a_thread_and_the_others_wake_theirs() -> None:
    second, third = Lent("second"), Lent("third")

    def both(batch: list[int]) -> None:
        second.push_many(batch)
        third.push_many(batch)

    first = Handler("first", both)
    at_rest(first, second, third)
    first.push_many([0])
    rest(first)
    stop(first, second, third)
    assert (second.handled, third.handled) == ([(0, "first")], [(0, "third")])


def test_what_comes_while_a_node_is_lent_is_handled_after_it() -> None:
    entered, gate = threading.Event(), threading.Event()

    def hold(batch: list[int]) -> None:
        entered.set()
        assert gate.wait(WAIT_S)

    second = Lent("second", hold)
    first = Handler("first", second.push_many)
    at_rest(first, second)
    first.push_many([0])
    assert entered.wait(WAIT_S)
    second.push_many([1])
    flushed = second.flush()
    assert not flushed.done()
    gate.set()
    flushed.result(WAIT_S)
    stop(first, second)
    assert second.handled == [(0, "first"), (1, "second")]


def test_a_stop_while_a_node_is_lent_ends_it_after_what_it_has() -> None:
    entered, gate = threading.Event(), threading.Event()

    def hold(batch: list[int]) -> None:
        entered.set()
        assert gate.wait(WAIT_S)

    second = Lent("second", hold)
    first = Handler("first", second.push_many)
    at_rest(first, second)
    first.push_many([0])
    assert entered.wait(WAIT_S)
    second.push_many([1])
    second.request_stop()
    assert not second.join(0.01)
    gate.set()
    assert second.join(WAIT_S)
    stop(first)
    assert [event for event, _ in second.handled] == [0, 1]
    assert second.stopped_on == ["second"]


def test_a_node_that_ends_with_its_last_batch_leaves_the_next_one_to_its_own_thread() -> None:
    entered, gate = threading.Event(), threading.Event()

    def hold(batch: list[int]) -> None:
        entered.set()
        assert gate.wait(WAIT_S)
        if 1 in batch:
            second.push_many(batch)

    second = Lent("second")
    first = Handler("first", hold)
    at_rest(first, second)
    first.push_many([0])
    assert entered.wait(WAIT_S)
    first.push_many([1])
    first.request_stop()
    gate.set()
    assert first.join(WAIT_S)
    stop(second)
    assert second.handled == [(1, "second")]


def test_a_supervisor_that_raises_ends_the_lent_node_and_not_its_borrower() -> None:
    class Raising(Notes):
        def node_failed(self, *arguments: Any, **named: Any) -> None:
            raise LookupError("the supervisor's own")

    def fail(batch: list[int]) -> None:
        raise RuntimeError("cannot digest")

    second = Lent("second", fail, supervisor=Raising())
    first = Handler("first", second.push_many)
    at_rest(first, second)
    first.push_many([0])
    rest(first)
    assert second.join(WAIT_S)
    assert isinstance(second.error, LookupError)
    assert second.stopped_on == ["second"]
    stop(first)
    assert first.error is None


def test_a_lent_node_that_fails_starts_again_and_its_borrower_goes_on() -> None:
    notes = Notes()

    def fail_once(batch: list[int]) -> None:
        if batch == [0]:
            raise RuntimeError("cannot digest 0")

    second = Lent("second", fail_once, supervisor=notes)
    first = Handler("first", second.push_many, supervisor=notes)
    at_rest(first, second)
    for event in (0, 1):
        first.push_many([event])
        rest(first)
    stop(first, second)
    assert notes.failures == [("second", "cannot digest 0", [0], True, "first")]
    assert [event for event, _ in second.handled] == [0, 1]
    assert (second.statistics().failures, second.statistics().restarts, first.statistics().failures) == (1, 1, 0)


def test_a_lent_node_that_fails_for_good_ends_its_own_thread() -> None:
    notes = Notes()

    def fail(batch: list[int]) -> None:
        raise SystemExit("gone")

    second = Lent("second", fail, supervisor=notes, options=NodeConfig(max_restarts=0))
    first = Handler("first", second.push_many, supervisor=notes)
    at_rest(first, second)
    first.push_many([0])
    rest(first)
    assert second.join(WAIT_S)
    assert notes.failures == [("second", "gone", [0], False, "first")]
    assert second.stopped_on == ["second"]
    with pytest.raises(NodeFailedError, match="gone"):
        second.push_many([1])
    stop(first)
    assert first.error is None


def test_a_node_that_fails_after_it_passed_a_batch_on_keeps_no_other_from_its_work() -> None:
    second = Lent("second")

    def pass_on_and_fail(batch: list[int]) -> None:
        second.push_many(batch)
        raise RuntimeError("too late")

    notes = Notes()
    first = Handler("first", pass_on_and_fail, supervisor=notes)
    at_rest(first, second)
    first.push_many([0])
    second.flush().result(WAIT_S)
    stop(first, second)
    assert second.handled in ([(0, "second")], [(0, "first")])
    assert notes.failures[0][:4] == ("first", "too late", [0], True)


@pytest.mark.long
@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_in_a_circle_each_event_is_handled_once_by_one_thread_at_a_time(tokens: int) -> None:
    """Events of 10 times the number go round; each is its token and the hops that it has still to go."""
    hops, over = 2_000, threading.Semaphore(0)

    def to(place: int) -> Callable[[list[int]], None]:
        def pass_on(batch: list[int]) -> None:
            left = [event - 10 for event in batch if event >= 10]
            for _ in range(len(batch) - len(left)):
                over.release()
            nodes[(place + 1) % len(nodes)].push_many(left)

        return pass_on

    nodes: list[Handler] = []
    for place in range(5):
        kind = Handler if place == 2 else Lent
        nodes.append(kind(f"node-{place}", to(place)))
    for node in nodes:
        node.start()
    for token in range(tokens):
        nodes[token % 5].push_many([10 * hops + token])
    for _ in range(tokens):
        assert over.acquire(timeout=WAIT_S)
    stop(*nodes)
    counts: dict[int, int] = {}
    for node in nodes:
        for event, _ in node.handled:
            counts[event] = counts.get(event, 0) + 1
    assert counts == {10 * left + token: 1 for token in range(tokens) for left in range(hops + 1)}


def test_a_node_that_is_called_by_the_time_cannot_be_lent() -> None:
    with pytest.raises(ValueError, match="node a: expected neither interval_s nor a _wait_s hook"):
        Lent("a", interval_s=1.0)
