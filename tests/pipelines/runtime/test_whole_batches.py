"""An episode has one holder: a batch goes on as a whole, or its node keeps the whole of it and gives it up."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.sink import MultiSink
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.events import RewardEvent
from policyserver.pipelines.forecast.block_forecaster import STATISTICS, BlockForecaster
from policyserver.pipelines.forecast.regressor import RegressorConfig
from policyserver.pipelines.market.block import EpisodeBlock
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.nodes.pipeline_node import Wiring
from policyserver.pipelines.nodes.signal_node import SignalNode
from policyserver.pipelines.played_block import PlayedBlock
from policyserver.pipelines.prices import PricesConfig, make_source
from policyserver.pipelines.run_state import RunState
from policyserver.pipelines.runtime.inbox import InboxFullError, NodeClosedError, NodeConfig
from policyserver.pipelines.runtime.node import Node
from policyserver.pipelines.runtime.node_group import NodeGroup
from policyserver.pipelines.runtime.routes import Recorder, Routes
from tests.pipelines.policy_double import PolicyDouble

WAIT_S = 60.0
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


@pytest.mark.long
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
    source = make_source(PricesConfig(bars_per_episode=1, warmup_bars=8), seed=1)
    routes, run = Routes(), RunState(slots=1, steps=None)
    policy, episode = Handled("policy", NodeConfig()), Handled("episode", SMALL)
    routes.policy, routes.episode = NodeGroup("policy", [policy], lambda event: 0), NodeGroup("episode", [episode], lambda event: 0)
    episode.push_many(["earlier", "events"])
    rules = Rules.of(RulesConfig())
    block = EpisodeBlock(1, source.slots, rules, STATISTICS)
    played = PlayedBlock(0, 0, block, BlockForecaster(block.view, RegressorConfig()), np.zeros(block.shape.n_rows, dtype=np.int64))
    played.begin(source, 1)
    rows = played.playing
    block.fill(rows, played.feed.next(rows))
    wiring = Wiring(PipelineConfig(), Notes(), routes, run, Recorder(MultiSink(), {}), PolicyDouble(), source)
    node = SignalNode("signal", wiring, lambda: 0)
    with pytest.raises(InboxFullError):
        node._process([RewardEvent(played, rows, block.mark(rows))])
    assert policy.waiting == 0, "the policy would go on with a block that the failed node gives up"
