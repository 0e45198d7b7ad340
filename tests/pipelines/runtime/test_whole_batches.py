"""An episode has one holder: a batch goes on as a whole, or its node keeps the whole of it and gives it up."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from policyserver.monitoring.sink import MultiSink
from policyserver.pipelines.account import Account, AccountConfig
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.events import Episode, MarketEvent, OrderEvent
from policyserver.pipelines.nodes.execution_node import ExecutionNode
from policyserver.pipelines.nodes.pipeline_node import Wiring
from policyserver.pipelines.prices import PricesConfig, make_source
from policyserver.pipelines.run_state import RunState
from policyserver.pipelines.runtime.inbox import InboxFullError, NodeClosedError, NodeConfig
from policyserver.pipelines.runtime.node import Node
from policyserver.pipelines.runtime.node_group import NodeGroup
from policyserver.pipelines.runtime.routes import Recorder, Routes
from tests.pipelines.policy_double import PolicyDouble

WAIT_S = 10.0
SMALL = NodeConfig(capacity=2, overflow="fail")


class Handled(Node[Any]):
    """Notes what it handled."""

    def __init__(self, name: str, options: NodeConfig) -> None:
        super().__init__(name, options)
        self.events: list[Any] = []

    def _process(self, batch: list[Any]) -> None:
        self.events.extend(batch)


class Notes:
    """A supervisor that notes which events were dropped."""

    def __init__(self) -> None:
        self.dropped: list[Any] = []

    def node_failed(self, node: Node[Any], error: BaseException, in_hand: Sequence[Any], *, restarts: bool) -> None:
        raise AssertionError(f"{node.name} failed") from error

    def events_dropped(self, node: Node[Any], events: Sequence[Any]) -> None:
        self.dropped.extend(events)


def two(options: NodeConfig) -> tuple[NodeGroup[int], Handled, Handled]:
    """Make a group whose first replica gets the even events and whose second the odd ones; nothing runs."""
    first, second = Handled("first", options), Handled("second", options)
    return NodeGroup("both", [first, second], lambda event: event), first, second


def test_a_group_with_one_full_replica_takes_nothing_at_all() -> None:
    group, first, second = two(SMALL)
    group.push_many([1, 3])
    with pytest.raises(InboxFullError, match="inbox of node second: 2 of 2 events waiting, no room for 1 more"):
        group.push_many([0, 5])
    assert (first.waiting, second.waiting) == (0, 2), "what the first replica would work on is given up by whoever pushed"
    assert group.statistics().overflowed == 1


def test_a_group_with_one_stopped_replica_takes_nothing_at_all() -> None:
    group, first, second = two(NodeConfig())
    second.request_stop()
    with pytest.raises(NodeClosedError, match="node second"):
        group.push_many([0, 1])
    assert first.waiting == 0


def test_nothing_goes_while_one_replica_is_waited_for_and_everything_once_it_has_room() -> None:
    group, first, second = two(NodeConfig(capacity=2, push_timeout_s=WAIT_S))
    group.push_many([1, 3])
    pushing = threading.Thread(target=group.push_many, args=([0, 5],))
    pushing.start()
    pushing.join(0.2)
    assert pushing.is_alive()
    assert first.waiting == 0
    group.start()
    pushing.join(WAIT_S)
    assert group.stop()
    assert (first.events, second.events) == ([0], [1, 3, 5])


def test_what_drop_oldest_drops_in_one_replica_is_dropped_only_when_the_others_take_theirs() -> None:
    notes, first, second = Notes(), Handled("first", SMALL), Handled("second", NodeConfig(capacity=2, overflow="drop_oldest"))
    second.supervisor = notes
    group = NodeGroup("both", [first, second], lambda event: event)
    group.push_many([0, 2, 1, 3])
    with pytest.raises(InboxFullError):
        group.push_many([4, 5])
    assert (notes.dropped, second.waiting) == ([], 2)
    group.push_many([5])
    assert notes.dropped == [1]


def test_a_node_that_cannot_pass_on_all_of_its_batch_passes_on_none_of_it() -> None:
    source = make_source(PricesConfig(bars_per_episode=5, warmup_bars=2), seed=1)
    episodes = [Episode(slot, f"AAA-{slot}", source.episode("AAA", slot), Account(AccountConfig(), 100.0)) for slot in range(2)]
    routes = Routes()
    market, reward = Handled("market", NodeConfig()), Handled("reward", SMALL)
    routes.market, routes.reward = NodeGroup("market", [market], lambda event: 0), NodeGroup("reward", [reward], lambda event: 0)
    reward.push_many(["earlier", "events"])
    config = PipelineConfig()
    node = ExecutionNode("execution", Wiring(config, Notes(), routes, RunState(2, None), Recorder(MultiSink(), {}), PolicyDouble(), source))
    bar = episodes[1].prices.next_bar()
    assert bar is not None
    with pytest.raises(InboxFullError):
        node._process([OrderEvent(episodes[0], None), MarketEvent(episodes[1], bar)])
    assert market.waiting == 0, "the market would go on with an episode that the failed node gives up"
