"""The wait of a node's thread at its inbox: it ends with a push, with the time, and never for good."""

from __future__ import annotations

import threading
import time

import pytest

from policyserver.pipelines.runtime.inbox import Inbox, NodeConfig
from policyserver.pipelines.runtime.node import Node

WAIT_S = 60.0


def inbox(capacity: int = 4) -> Inbox[int]:
    return Inbox("a", NodeConfig(capacity=capacity), on_drop=lambda events: None)


def test_a_wait_ends_with_the_time_and_the_next_one_with_a_push() -> None:
    box = inbox()
    with box.lock:
        box.wait(0.001)
    pusher = threading.Timer(0.01, lambda: box.put_at_once([1]))
    pusher.start()
    with box.lock:
        while not len(box):
            box.wait(WAIT_S)
        assert box.take() == [1]
    pusher.join()


@pytest.mark.long
def test_a_push_at_the_very_end_of_the_time_is_not_taken_for_a_later_one() -> None:
    """What wakes no wait any more must not end the next one, and no event may be slept over."""
    box, count = inbox(capacity=100_000), 300
    go = threading.Semaphore(0)

    def push() -> None:
        for number in range(count):
            assert go.acquire(timeout=WAIT_S)
            time.sleep(0.0005)
            assert box.put_at_once([number])

    pusher = threading.Thread(target=push)
    pusher.start()
    taken: list[int] = []
    for _ in range(count):
        go.release()
        with box.lock:
            box.wait(0.0005)
            while not len(box):
                box.wait(WAIT_S)
            taken += box.take()
    pusher.join()
    assert taken == list(range(count))

    def push_while_the_wait_ends() -> None:
        with box.lock:  # which the wait gives up, and wants back at its end
            time.sleep(0.2)
            box.put([count])

    pusher = threading.Thread(target=push_while_the_wait_ends)
    with box.lock:
        pusher.start()
        box.wait(0.1)
        began_s = time.monotonic()
        box.wait(0.02)
    assert time.monotonic() - began_s >= 0.02, "no wake-up is left over"
    pusher.join()


def test_what_is_not_usual_is_left_to_the_slow_way() -> None:
    box = inbox(capacity=2)
    assert box.put_at_once([1, 2])
    assert not box.put_at_once([3])
    assert box.queue_max == 2
    with box.lock:
        assert box.take() == [1, 2]
        box.close()
    assert not box.put_at_once([3])


class Timed(Node[int]):
    """Wants to be called some time after its last event."""

    def __init__(self) -> None:
        super().__init__("timed")
        self.batches: list[list[int]] = []
        self.called = threading.Event()
        self._due = False

    def _process(self, batch: list[int]) -> None:
        self.batches.append(batch)
        self._due = bool(batch)
        if not batch:
            self.called.set()

    def _wait_s(self) -> float | None:
        return 0.02 if self._due else None


def test_a_node_that_waits_for_a_time_is_called_without_events_once_it_has_come() -> None:
    node = Timed()
    node.start()
    node.push_many([1])
    assert node.called.wait(WAIT_S)
    assert node.stop()
    assert node.batches[0] == [1]
    assert node.batches.count([]) == 1, "and not again"
