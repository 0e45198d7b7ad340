"""A node handles events in order and in batches; a failure restarts it or ends it, and a full inbox does what its policy says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from policyserver.pipelines.runtime.inbox import InboxFullError, NodeClosedError, NodeConfig, NodeFailedError
from policyserver.pipelines.runtime.node import Node
from policyserver.pipelines.runtime.node_group import NodeGroup

WAIT_S = 60.0


class Collector(Node[int]):
    """Keeps what it handles; handles nothing before `gate` opens, and calls `on_batch` first."""

    def __init__(self, name: str = "collector", on_batch: Callable[[list[int]], None] = lambda batch: None, **arguments: Any) -> None:
        super().__init__(name, **arguments)
        self.on_batch = on_batch
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches: list[list[int]] = []
        self.stops = 0

    def _process(self, batch: list[int]) -> None:
        self.entered.set()
        assert self.gate.wait(WAIT_S)
        self.on_batch(batch)
        self.batches.append(batch)

    def _stop(self) -> None:
        self.stops += 1

    @property
    def events(self) -> list[int]:
        return [event for batch in self.batches for event in batch]


class Notes:
    """A supervisor that writes everything down."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, str, list[int], bool]] = []
        self.dropped: list[int] = []

    def node_failed(self, node: Node[Any], error: BaseException, in_hand: Sequence[int], *, restarts: bool) -> None:
        self.failures.append((node.name, str(error), list(in_hand), restarts))

    def events_dropped(self, node: Node[Any], events: Sequence[int]) -> None:
        self.dropped.extend(events)


def hold(node: Collector, event: int = 0) -> None:
    """Start the node and let it get stuck in its first batch, `[event]`."""
    node.gate.clear()
    node.start()
    node.push_many([event])
    assert node.entered.wait(WAIT_S)


def raise_on(bad: int) -> Callable[[list[int]], None]:
    def check(batch: list[int]) -> None:
        if bad in batch:
            raise RuntimeError(f"cannot digest {bad}")

    return check


def test_events_are_handled_in_order_and_counted() -> None:
    node = Collector()
    node.start()
    for start in range(0, 100, 10):
        node.push_many(range(start, start + 10))
    node.flush().result(WAIT_S)
    assert node.events == list(range(100))
    assert node.stop()
    statistics = node.statistics()
    assert (statistics.processed, statistics.failures, statistics.threads) == (100, 0, 1)
    assert node.stops == 1


def test_what_arrives_while_a_batch_is_handled_becomes_the_next_batch() -> None:
    node = Collector()
    hold(node, 0)
    for event in (1, 2, 3):
        node.push_many([event])
    node.gate.set()
    assert node.stop()
    assert node.batches == [[0], [1, 2, 3]]
    assert node.statistics().queue_max == 3


def test_a_stopping_node_handles_what_it_has_and_takes_no_more() -> None:
    node = Collector()
    hold(node)
    node.push_many([1, 2])
    node.request_stop()
    with pytest.raises(NodeClosedError, match="collector"):
        node.push_many([3])
    node.gate.set()
    assert node.join(WAIT_S)
    assert node.events == [0, 1, 2]


def test_stop_is_harmless_before_the_start_and_when_repeated() -> None:
    node = Collector()
    assert node.stop()
    assert node.stop()
    node.start()
    assert node.join(0.0)
    assert node.stops == 0, "its thread never began"


@pytest.mark.long
def test_a_node_that_is_stuck_is_reported_by_stop() -> None:
    node = Collector()
    hold(node)
    assert not node.stop(timeout_s=0.05)
    node.gate.set()
    assert node.join(WAIT_S)


def test_a_failed_batch_goes_to_the_supervisor_and_the_node_goes_on() -> None:
    notes = Notes()
    node = Collector(on_batch=raise_on(7), supervisor=notes)
    node.push_many([6, 7, 8])
    waiting = node.flush()
    node.start()
    with pytest.raises(RuntimeError, match="cannot digest 7"):
        waiting.result(WAIT_S)
    node.push_many([9])
    node.flush().result(WAIT_S)
    assert node.stop()
    assert notes.failures == [("collector", "cannot digest 7", [6, 7, 8], True)]
    assert node.events == [9]
    statistics = node.statistics()
    assert (statistics.processed, statistics.failures, statistics.restarts) == (1, 1, 1)
    assert node.stops == 1


def test_events_that_wait_while_a_node_fails_are_handled_after_its_restart() -> None:
    notes = Notes()
    node = Collector(on_batch=raise_on(0), supervisor=notes)
    hold(node, 0)
    node.push_many([1, 2])
    node.gate.set()
    assert node.stop()
    assert node.events == [1, 2]
    assert notes.failures[0][2] == [0]


def test_a_node_that_fails_too_often_stays_down_and_hands_over_everything_it_had() -> None:
    notes = Notes()
    node = Collector(on_batch=raise_on(0), supervisor=notes, options=NodeConfig(max_restarts=1))
    hold(node, 0)
    waiting = node.flush()
    node.gate.set()
    with pytest.raises(RuntimeError):
        waiting.result(WAIT_S)
    node.gate.clear()
    node.entered.clear()
    node.push_many([0])
    assert node.entered.wait(WAIT_S)
    node.push_many([1, 2])
    node.gate.set()
    assert node.join(WAIT_S)
    assert [(in_hand, restarts) for _, _, in_hand, restarts in notes.failures] == [([0], True), ([0, 1, 2], False)]
    with pytest.raises(NodeFailedError, match="cannot digest 0"):
        node.push_many([3])
    assert str(node.error) == "cannot digest 0"
    assert node.stops == 1


def test_even_system_exit_in_a_hook_is_a_failure_that_somebody_hears_of() -> None:
    notes = Notes()

    def leave(batch: list[int]) -> None:
        raise SystemExit("gone")

    node = Collector(on_batch=leave, supervisor=notes, options=NodeConfig(max_restarts=0))
    node.start()
    node.push_many([1])
    assert node.join(WAIT_S)
    assert notes.failures == [("collector", "gone", [1], False)]


@pytest.mark.long
def test_block_waits_for_room_and_then_gives_up() -> None:
    node = Collector(options=NodeConfig(capacity=2, push_timeout_s=0.05))
    hold(node)
    node.push_many([1, 2])
    with pytest.raises(InboxFullError, match="2 of 2 events waiting"):
        node.push_many([3])
    assert node.statistics().overflowed == 1
    node.gate.set()
    assert node.stop()
    assert node.events == [0, 1, 2]


def test_block_goes_on_as_soon_as_there_is_room() -> None:
    node = Collector(options=NodeConfig(capacity=2, push_timeout_s=WAIT_S))
    hold(node)
    node.push_many([1, 2])
    pusher = threading.Thread(target=node.push_many, args=([3],))
    pusher.start()
    node.gate.set()
    pusher.join(WAIT_S)
    assert node.stop()
    assert node.events == [0, 1, 2, 3]


def test_drop_oldest_hands_the_dropped_events_to_the_supervisor() -> None:
    notes = Notes()
    node = Collector(options=NodeConfig(capacity=3, overflow="drop_oldest"), supervisor=notes)
    hold(node)
    node.push_many([1, 2, 3])
    node.push_many([4, 5])
    node.gate.set()
    assert node.stop()
    assert notes.dropped == [1, 2]
    assert node.events == [0, 3, 4, 5]


def test_fail_refuses_at_once_and_takes_none_of_the_events() -> None:
    node = Collector(options=NodeConfig(capacity=3, overflow="fail"))
    hold(node)
    node.push_many([1, 2])
    with pytest.raises(InboxFullError, match="no room for 2 more"):
        node.push_many([3, 4])
    node.gate.set()
    assert node.stop()
    assert node.events == [0, 1, 2]


def test_a_node_with_an_interval_is_called_with_what_came_even_if_nothing_did() -> None:
    calls = threading.Semaphore(0)
    node = Collector(on_batch=lambda batch: calls.release(), interval_s=0.01)
    node.start()
    for _ in range(3):
        assert calls.acquire(timeout=WAIT_S)
    assert node.stop()
    assert node.events == []


def test_a_group_keeps_equal_keys_on_one_replica_in_order() -> None:
    replicas = [Collector(f"node-{i}") for i in range(3)]
    group = NodeGroup("node", replicas, key=lambda event: event // 100)
    group.start()
    events = [key * 100 + step for step in range(50) for key in range(6)]
    group.push_many(events)
    assert group.stop()
    for index, replica in enumerate(replicas):
        assert replica.events == [event for event in events if event // 100 % 3 == index]
    statistics = group.statistics()
    assert (statistics.processed, statistics.threads) == (300, 3)


@pytest.mark.parametrize(
    "wrong", [{"capacity": 0}, {"overflow": "ignore"}, {"push_timeout_s": 0.0}, {"max_restarts": -1}], ids=lambda wrong: next(iter(wrong))
)
def test_options_name_the_wrong_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NodeConfig(**wrong)
