"""What all nodes of a pipeline share: its settings, where events and points go, the policy and the prices."""

from __future__ import annotations

from dataclasses import dataclass, field

from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.prices import PriceSource
from policyserver.pipelines.replay.turn import NoTurns, Turns
from policyserver.pipelines.run_state import RunState
from policyserver.pipelines.runtime.inbox import EventT
from policyserver.pipelines.runtime.node import Node, Supervisor
from policyserver.pipelines.runtime.routes import Recorder, Routes
from policyserver.pipelines.serving import PolicyService


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the nodes of one pipeline are connected with."""

    config: PipelineConfig
    supervisor: Supervisor
    """Is told of failures and of dropped events."""
    routes: Routes
    run: RunState
    recorder: Recorder
    policy: PolicyService
    source: PriceSource
    turns: Turns = field(default_factory=NoTurns)
    """Takes what happened to each block."""


class PipelineNode(Node[EventT]):
    """A node of a pipeline."""

    def __init__(self, name: str, wiring: Wiring) -> None:
        """Make the node; see `Node`."""
        super().__init__(name, wiring.config.nodes.inbox, supervisor=wiring.supervisor)
        self._config = wiring.config
        self._routes = wiring.routes
        self._run_state = wiring.run
        self._recorder = wiring.recorder
        self._policy = wiring.policy
        self._source = wiring.source
        self._turns = wiring.turns
