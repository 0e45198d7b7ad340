"""The state of an env runner: weights, connector states and counters, on their ways in and out."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import ray
from ray.rllib.core import COMPONENT_ENV_TO_MODULE_CONNECTOR, COMPONENT_MODULE_TO_ENV_CONNECTOR, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME, WEIGHTS_SEQ_NO

from policyserver.server.policies.connectors.connector_states import adopt_state, export_state
from policyserver.server.policies.connectors.policy_choice import frozen_policy
from policyserver.server.policies.named.named_policies import NamedPolicies
from policyserver.server.policies.policy import LIVE_NAME, Policy
from policyserver.server.processes.rolled_back import RolledBack
from policyserver.server.processes.weights_sum import sha256_of_weights
from policyserver.server.runner.serving_loop import ServingLoop
from policyserver.server.runner.weights_pull import WeightsPull

logger = logging.getLogger(__name__)

T = TypeVar("T")

LINEAGE = "lineage"
"""Key of a state: how many roll-backs of the run it comes after. RLlib's own states lack it."""
ROLLED_BACK = "rolled_back"
"""Key of a state that is offered to restarted instances: it is served already, and RLlib's learner does not have it yet."""


class RunnerState(Checkpointable):
    """What RLlib reads, sets and saves of an env runner. The half of ExternalEnvRunner that keeps the policy up to date.

    Three ways bring weights: RLlib's calls of `set_state`, in their order; the daemon's link to an instance that was restarted
    (`revive`), on a thread of its own; and what the runner pulls by itself (`pull_weights`), if the algorithm wants it so.

    A fourth one, `roll_back`, comes before RLlib's learner has the same state. Until it has, what RLlib brings is from before.
    """

    config: Any
    module: TorchRLModule
    num_env_steps_sampled_lifetime: int

    def __init__(self) -> None:
        self._weights_seq_no = 0
        self._lineage = 0
        self._oldest_version = 0
        """What is older is from before the last roll-back, and comes late."""
        self._is_ahead = False
        """Whether a roll-back is served that RLlib's learner has not followed yet."""
        self._state_lock = threading.RLock()  # the daemon's link and RLlib may both bring a state, and both may open the port
        self._env_runner_state_server: Any = None  # RLlib sets it
        self._weights_pull = WeightsPull()
        self._env_to_module: Any = None
        self._module_to_env: Any = None
        self._index = 0
        self._serving_loop: ServingLoop | None = None
        self._policy: Policy | None = None

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return weights, connector states and counters."""
        state: dict[str, Any] = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime}
        if self._check_component(COMPONENT_RL_MODULE, components, not_components):
            if self._serving_loop is None:
                self.pull_weights()  # RLlib gives this state to restarted instances, but doesn't keep this one up to date
            state[COMPONENT_RL_MODULE] = self.module.get_state(
                components=self._get_subcomponents(COMPONENT_RL_MODULE, components),
                not_components=self._get_subcomponents(COMPONENT_RL_MODULE, not_components),
                **kwargs,
            )
            state[WEIGHTS_SEQ_NO] = self._weights_seq_no
            if self._lineage:
                state[LINEAGE] = self._lineage
        for name, connector in self._connectors.items():
            if self._check_component(name, components, not_components):
                state[name] = self._where_it_serves(functools.partial(export_state, connector))
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Take weights, connector states and counters; the weights are served from the next batch on.

        RLlib's own runner keeps its weights if their version is the higher one, and so goes on with them when an older checkpoint is
        restored. But an instance's calls come in the order they were made, so what comes here is what the driver wants served: an older
        version is never a late one. Late ones may come on the two other ways only.
        """
        if self._serving_loop is not None:
            self._serving_loop.takes_old_call()  # what comes after this is new
        with self._state_lock:
            if self._serving_loop is not None and self._comes_late(state):
                return
            self._lineage, self._is_ahead = state.get(LINEAGE, self._lineage), False
            before = self._weights_seq_no
            self._take_state(state)
            if COMPONENT_RL_MODULE in state and self._env_runner_state_server is not None:
                if self._serving_loop is None:  # in the driver; the state server would go on giving out the earlier weights
                    self._weights_pull.replace(self._env_runner_state_server, state, self._weights_seq_no)
                self._weights_pull.note_restored(before, self._weights_seq_no)

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[()], dict[str, Any]]:
        """Return what makes another runner like this one."""
        return (), {"config": self.config}

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """Return the parts that have state."""
        return [(COMPONENT_RL_MODULE, self.module), *self._connectors.items()]

    def revive(self, state: dict[str, Any]) -> None:
        """Take the state of an instance that died, unless RLlib has brought a newer one by now."""
        with self._state_lock:
            if state[WEIGHTS_SEQ_NO] == 0 or state[WEIGHTS_SEQ_NO] > self._weights_seq_no:
                self._note_lineage(state, is_ahead=ROLLED_BACK in state)
                self._take_state(state)

    def roll_back(self, order: tuple[dict[str, Any], bool]) -> RolledBack:
        """Serve an earlier state at once, in a serving instance, and take what RLlib sends for late until it has that state, too.

        An order changes nothing if its state is served already: this instance hung until RLlib brought it, or was restarted with it.

        Args:
            order: The state, under a version and a lineage of its own, and whether recorded steps are dropped.
        """
        state, drops_steps = order
        loop, policy = self._serving_loop, self._policy
        assert loop is not None
        assert policy is not None
        with self._state_lock:
            if state[LINEAGE] <= self._lineage:
                return RolledBack(self._weights_seq_no, sha256_of_weights(self.module.state_dict()), 0)
            version = max(int(state[WEIGHTS_SEQ_NO]), self._weights_seq_no + 1)
            self._note_lineage({**state, WEIGHTS_SEQ_NO: version}, is_ahead=True)
            self.module.set_state(state[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID])
            self._weights_seq_no = version
            policy.load_spare(self.module.state_dict())

            def switch() -> int:
                for name, connector in self._connectors.items():
                    if name in state:
                        adopt_state(connector, state[name], keep_delta=False)
                self._count_steps(state[NUM_ENV_STEPS_SAMPLED_LIFETIME])
                return loop.core.roll_back(version, drops_steps=drops_steps)

            dropped = loop.call(switch)
            return RolledBack(version, sha256_of_weights(self.module.state_dict()), dropped)

    def hold_policy(self, order: tuple[str, Mapping[str, Any]]) -> str:
        """Serve a state under a name, beside the policy that learns, in a serving instance.

        Args:
            order: The name, and the state.

        Returns:
            Why not; empty: it is served.
        """
        name, state = order
        policies = self._policy
        if not isinstance(policies, NamedPolicies):
            return f"expected connectors and callbacks that have array code here, received others: only {LIVE_NAME!r} is served with them"
        spaces: dict[str, Any] = {key: value for key, value in self.get_spaces().items() if key != DEFAULT_MODULE_ID}
        pipelines = self.config.build_env_to_module_connector(spaces=spaces), self.config.build_module_to_env_connector(spaces=spaces)
        try:
            with self._state_lock:
                policy = frozen_policy(self.config, policies.live, *pipelines, state)
        except Exception as error:  # whatever RLlib raises of another net's state
            logger.exception("the state of policy %s can't be used", name)
            return f"its state doesn't fit the net: {error!r}"
        self._where_it_serves(lambda: policies.add(name, policy))
        return ""

    def hold_policies(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Serve states by name, in an instance that was restarted."""
        for name, state in states.items():
            if failure := self.hold_policy((name, state)):
                logger.error("policy %s is not served: %s", name, failure)

    def drop_policy(self, name: str) -> bool:
        """Begin no new episodes with a policy; returns whether it was held."""
        policies = self._policy
        return isinstance(policies, NamedPolicies) and self._where_it_serves(lambda: policies.drop(name))

    def get_spaces(self) -> dict[str, Any]:
        """Return the spaces under the names that RLlib's connectors look for."""
        raise NotImplementedError

    @property
    def weights_seq_no(self) -> int:
        """Policy version."""
        return self._weights_seq_no

    def _note_lineage(self, state: dict[str, Any], *, is_ahead: bool) -> None:
        self._lineage, self._is_ahead = state.get(LINEAGE, 0), is_ahead
        if is_ahead:
            self._oldest_version = int(state[WEIGHTS_SEQ_NO])
            self._weights_pull.note_restored(self._oldest_version, self._oldest_version)

    def _comes_late(self, state: dict[str, Any]) -> bool:
        """Whether a state that RLlib brings is from before the last roll-back."""
        lineage = state.get(LINEAGE)
        return self._is_ahead if lineage is None else lineage < self._lineage

    def pull_weights(self) -> None:
        """Ask the state server of algorithms that don't push their weights (IMPALA, APPO)."""
        server = self._env_runner_state_server
        if server is not None and not self._is_ahead and (newest := self._weights_pull.newest(server)) is not None:
            with self._state_lock:
                self._take_state(newest)

    @property
    def _connectors(self) -> dict[str, Any]:
        return {COMPONENT_ENV_TO_MODULE_CONNECTOR: self._env_to_module, COMPONENT_MODULE_TO_ENV_CONNECTOR: self._module_to_env}

    def _take_state(self, state: dict[str, Any]) -> None:
        for name, connector in self._connectors.items():
            if name in state:
                # What comes to a remote instance is merged from what all of them exported; a lone one only gets restored states.
                self._where_it_serves(functools.partial(adopt_state, connector, state[name], keep_delta=self._index > 0))
        if COMPONENT_RL_MODULE in state:
            self._take_weights(state[COMPONENT_RL_MODULE], int(state.get(WEIGHTS_SEQ_NO, 0)))
        if NUM_ENV_STEPS_SAMPLED_LIFETIME in state:
            self._count_steps(state[NUM_ENV_STEPS_SAMPLED_LIFETIME])

    def _take_weights(self, weights: Any, seq_no: int) -> None:
        """Take weights; without a version, or with 0 from a learner before its first update, the version stays."""
        if 0 < seq_no < self._oldest_version:
            return
        if isinstance(weights, ray.ObjectRef):
            weights = ray.get(weights)
        if isinstance(weights, dict) and DEFAULT_MODULE_ID in weights:
            weights = weights[DEFAULT_MODULE_ID]
        self.module.set_state(weights)
        self._weights_seq_no = seq_no or self._weights_seq_no
        if self._serving_loop is not None and self._policy is not None:
            self._policy.load_spare(self.module.state_dict())
            self._serving_loop.serve_weights(self._weights_seq_no)

    def _where_it_serves(self, function: Callable[[], T]) -> T:
        """Call a function of something that the loop thread owns, on the loop thread."""
        return self._serving_loop.call(function) if self._serving_loop is not None else function()

    def _count_steps(self, lifetime_steps: int) -> None:
        self.num_env_steps_sampled_lifetime = lifetime_steps
        if self._policy is not None:
            self._policy.count_steps(lifetime_steps)
