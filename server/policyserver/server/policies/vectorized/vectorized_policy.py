"""Decides actions on whole batches of arrays: what RLlib's default connectors do, and those that `connector_choice` knows."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical

from policyserver.common.acting.action_form import ActionForm
from policyserver.common.acting.chances import epsilon_greedy, passed, sums_of_chances
from policyserver.common.acting.keyed_draws import KeyedDraws
from policyserver.common.acting.observations import stacked
from policyserver.common.spaces import leaves
from policyserver.server.policies.module.action_draws import draw
from policyserver.server.policies.module.forward_pass import Backend, ForwardPass
from policyserver.server.policies.module.inference import NetPolicy, PolicyNet, UnsupportedModuleError
from policyserver.server.policies.policy import (
    Array,
    Choice,
    DrawKeys,
    Mask,
    ModuleOutputs,
    StepLayout,
    StepResult,
    StepRows,
    scattered,
)
from policyserver.server.policies.vectorized.observation_connectors import VectorizedConnector


class VectorizedPolicy(NetPolicy):
    """Run a net between array versions of its connectors. See the `Policy` protocol."""

    def __init__(
        self,
        net: PolicyNet,
        form: ActionForm,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        connectors: Sequence[VectorizedConnector] = (),
        num_frames: int = 1,
        lookback: int = 1,
        state_every: int = 20,
        seed: int | None = None,
        backend: Backend = "torch",
        replays: bool = False,
    ) -> None:
        """Find out what the net gives, by a pass on zeros.

        Args:
            net: The net.
            form: The two forms of its actions.
            observation_space: Observations as they are recorded, so behind the connectors.
            action_space: The environment's.
            connectors: What rewrites the client's observations, in their order.
            num_frames: How many of the newest observations the net sees at once, joined along their last axis.
            lookback: Least steps that a segment repeats of the one before it.
            state_every: As in `StepLayout`.
            seed: Seed of the drawing of actions; None makes one.
            backend: What runs the net, see `ForwardPass`.
            replays: Whether the learner has a replay buffer, and so learns from any steps, however they were decided.

        Raises:
            UnsupportedModuleError: The module gives neither actions nor a distribution of them, actions of another shape than the
                space's, or columns that are no tensors.
        """
        super().__init__(net)
        self._form = form
        net.leave_choice()
        self._space = observation_space
        self._connectors = tuple(connectors)
        self._earlier_frames = num_frames - 1
        self.replays = replays
        self._draws = KeyedDraws(seed)
        self._recurrent = len(net.initial_state)
        self.initial_state = list(net.initial_state)
        recorded = leaves(observation_space, "observation")
        if self._earlier_frames:
            self.initial_state.append(np.zeros((self._earlier_frames, *recorded[0].shape), recorded[0].dtype))
        zeros = [np.zeros((1, *leaf.shape), leaf.dtype) for leaf in recorded]
        seen = self._net_inputs(zeros, [leaf[None] for leaf in self.initial_state])
        self._pass = ForwardPass(net, seen, observation_space, backend)
        self._is_categorical = not self._pass.chooses_actions and net.distribution_class is TorchCategorical
        out, _ = self._pass.run(seen, [leaf[None] for leaf in net.initial_state])
        by = DrawKeys(np.zeros(1, np.uint64), np.zeros(1, np.int64))
        decisions = self._choose(out, by, np.empty(0, np.int64), np.empty((0, *form.shape), form.dtype))
        if decisions.actions.shape[1:] != form.shape:
            raise UnsupportedModuleError(
                f"{type(net.module).__name__}: expected actions of shape {form.shape} for {action_space}, "
                f"received {decisions.actions.shape[1:]}"
            )
        self._no_decisions = decisions.select(np.empty(0, np.int64))
        self.layout = StepLayout(
            observation_space,
            action_space,
            (form.shape, decisions.actions.dtype),
            {name: (column.shape[1:], column.dtype) for name, column in decisions.outputs.items()},
            net.state_structure,
            state_every,
            max(lookback, self._earlier_frames, 1),
        )

    def choose(self, name: str, episode_id: str, *, greedy: bool) -> Choice:
        """Choose the policy that learns, the only one here."""
        choice = super().choose(name, episode_id, greedy=greedy)
        return dataclasses.replace(choice, trains=True) if self.replays else choice

    @property
    def form(self) -> ActionForm:
        """The two forms of its actions."""
        return self._form

    def frozen_now(self) -> VectorizedPolicy:
        """Return a policy that goes on as this one is now. Nothing is copied."""
        return self._frozen(self._net.frozen(), self._connectors)

    def with_weights(
        self, connectors: Sequence[VectorizedConnector], weights: Mapping[str, Any], weights_seq_no: int, steps_sampled_lifetime: int
    ) -> VectorizedPolicy:
        """Return a policy like this one that learns nothing, with weights and connectors of its own. See `PolicyNet.with_weights`."""
        return self._frozen(self._net.with_weights(weights, weights_seq_no, steps_sampled_lifetime), connectors)

    def _frozen(self, net: PolicyNet, connectors: Sequence[VectorizedConnector]) -> VectorizedPolicy:
        other = copy.copy(self)
        other._net, other._pass = net, self._pass.of(net)
        other._connectors = tuple(connector.as_it_is() for connector in connectors)
        return other

    @property
    def has_statistics(self) -> bool:
        """Whether a connector learns from observations, so that those that a frozen policy records are others."""
        return any(connector.as_it_is() is not connector for connector in self._connectors)

    def decide(self, rows: StepRows) -> StepResult:
        """Choose actions. If it raises, nothing has changed."""
        observations = rows.observations
        for connector in self._connectors:
            observations = connector.write(observations, rows)
        asking, given = (~rows.ends).nonzero()[0], rows.given
        asked, state, by, greedy = observations, rows.state, rows.drawn_by, rows.greedy
        if len(asking) < len(rows):
            state = [leaf[asking] for leaf in state]
            if not asking.size:
                none, before = self._no_decisions, state[: self._recurrent]
                return StepResult(observations, rows.rewards, none, rows.actions[:0], before, state, rows.infos)
            asked, by = [leaf[asking] for leaf in observations], by.select(asking)
            given = np.searchsorted(asking, given)
            greedy = None if greedy is None else greedy[asking]
        decisions, executed, after = self._ask(asked, state, by, given, rows.given_actions, greedy)
        return StepResult(observations, rows.rewards, decisions, executed, state[: self._recurrent], after, rows.infos)

    decides_again = True

    def decide_again(self, rows: StepRows) -> StepResult:
        """Choose the actions of pending steps anew, by the net alone: their observations are written already."""
        decisions, executed, after = self._ask(rows.observations, rows.state, rows.drawn_by, rows.given, rows.given_actions, rows.greedy)
        return StepResult(rows.observations, rows.rewards, decisions, executed, rows.state[: self._recurrent], after)

    def commit(self, rows: StepRows, decided: StepResult, kept: Mask) -> None:
        """Let the connectors keep what they learned of these rows."""
        for connector in self._connectors:
            connector.commit(kept)

    def override(self, slot: int, outputs: Mapping[str, Array], action: Array) -> tuple[Array, npt.NDArray[np.float32] | None]:
        """Return an executed action in the net's form and its log-probability."""
        module_action = self._form.from_environment(action)
        return module_action, self._net.log_probs_of(module_action, outputs)

    def forget(self, slots: list[int]) -> None:
        """Do nothing: what is known of an episode is in the episode table."""

    def take_metrics(self) -> dict[str, Any]:
        """Return nothing: arrays log nothing."""
        return {}

    # The pass ------------------------------------------------------------------------------------------------------------------------

    def _ask(
        self, observations: list[Array], state: list[Array], by: DrawKeys, given: Array, given_actions: Array, greedy: Mask | None
    ) -> tuple[ModuleOutputs, Array, list[Array]]:
        """Run the net and choose; return the decisions, the actions as they are executed, and the state after them."""
        inputs, before = self._net_inputs(observations, state), state[: self._recurrent]
        if greedy is None or not greedy.any():
            out, after = self._pass.run(inputs, before)
            decisions = self._choose(out, by, given, given_actions)
        else:
            decisions, after = self._ask_both(inputs, before, by, given, given_actions, greedy)
        executed = self._form.to_environment(decisions.actions)
        if given.size:
            executed[given] = given_actions
        if self._earlier_frames:
            after.append(np.concatenate((state[-1][:, 1:], observations[0][:, None]), axis=1))
        return decisions, executed, after

    def _ask_both(
        self, inputs: list[Array], before: list[Array], by: DrawKeys, given: Array, given_actions: Array, greedy: Mask
    ) -> tuple[ModuleOutputs, list[Array]]:
        """Run a pass for the rows that explore and another for those that are `greedy`; return the decisions and the recurrent state."""
        places, decided, states = [], [], []
        for explore in (True, False):
            rows = np.flatnonzero(greedy != explore)
            if rows.size:
                out, after = self._pass.run(
                    [leaf[rows] for leaf in inputs], [leaf[rows] for leaf in before], explore=None if explore else False
                )
                is_here = np.isin(given, rows)
                here = np.searchsorted(rows, given[is_here])
                decided.append(self._choose(out, by.select(rows), here, given_actions[is_here], greedy=not explore))
                places.append(rows)
                states.append(after)
        return ModuleOutputs.joined(places, decided), [scattered(places, leaf) for leaf in zip(*states, strict=True)]

    def _net_inputs(self, observations: list[Array], state: list[Array]) -> list[Array]:
        """Put the earlier frames before the newest ones."""
        if not self._earlier_frames:
            return observations
        return [stacked(state[-1], observations[0])]

    # Actions -------------------------------------------------------------------------------------------------------------------------

    def _choose(self, out: dict[str, Array], by: DrawKeys, given: Array, given_actions: Array, *, greedy: bool = False) -> ModuleOutputs:
        outputs = {name: column for name, column in out.items() if name not in (Columns.ACTIONS, Columns.ACTION_LOGP, QF_PREDS)}
        module_actions = self._form.from_environment(given_actions) if given.size else None
        explore = self._net.explore and not greedy
        log_probs: Array | None
        if Columns.ACTIONS in out:
            actions, log_probs = self._module_choice(out, by, given, module_actions, explore)
        else:
            draw_actions = self._draw_categorical if self._is_categorical else self._draw
            actions, log_probs = draw_actions(out[Columns.ACTION_DIST_INPUTS], by, given, module_actions, explore)
        if greedy:  # a module's inference pass may give others than its exploration pass
            if log_probs is None and Columns.ACTION_LOGP in self.layout.outputs:
                log_probs = np.zeros(len(actions))
            outputs = {
                name: outputs[name] if name in outputs else np.zeros((len(actions), *shape), dtype)
                for name, (shape, dtype) in self.layout.outputs.items()
            }
        if log_probs is not None:
            log_probs = log_probs.astype(np.float32, copy=False)
            outputs[Columns.ACTION_LOGP] = log_probs
        return ModuleOutputs(actions, log_probs, outputs, self._net.weights_seq_no)

    def _module_choice(
        self, out: dict[str, Array], by: DrawKeys, given: Array, module_actions: Array | None, explore: bool
    ) -> tuple[Array, Array | None]:
        """Take the actions that the module gives, but for those that DQN leaves to chance."""
        actions, log_probs = out[Columns.ACTIONS].copy(), out.get(Columns.ACTION_LOGP)
        if self._net.leaves_choice and explore:
            actions = epsilon_greedy(out[QF_PREDS], self._net.epsilon, self._draws.uniforms(by.keys, by.steps, 2))
        if module_actions is not None:
            actions[given] = module_actions
            if log_probs is not None:
                log_probs = log_probs.copy()
                log_probs[given] = self._net.log_probs_of(module_actions, {name: column[given] for name, column in out.items()})
        return actions, log_probs

    def _draw_categorical(
        self, logits: Array, by: DrawKeys, given: Array, module_actions: Array | None, explore: bool
    ) -> tuple[Array, Array]:
        """Draw in plain numpy: the sums of the chances serve the draw and the log-probability."""
        shifted, sums = sums_of_chances(logits)
        actions = passed(sums, self._draws.uniform(by.keys, by.steps)) if explore else logits.argmax(axis=-1)
        if module_actions is not None:
            actions[given] = module_actions
        return actions, shifted[np.arange(len(actions)), actions] - np.log(sums[:, -1])

    def _draw(self, inputs: Array, by: DrawKeys, given: Array, module_actions: Array | None, explore: bool) -> tuple[Array, Array]:
        distribution = self._net.distribution_class.from_logits(torch.from_numpy(inputs))
        chosen = draw(distribution, self._draws, by) if explore else distribution.to_deterministic().sample()
        if module_actions is not None:
            chosen[torch.from_numpy(given)] = torch.from_numpy(module_actions).to(chosen.dtype)
        return chosen.numpy(), distribution.logp(chosen).numpy()
