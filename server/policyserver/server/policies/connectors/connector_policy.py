"""Decides actions with RLlib's own connector pipelines on live episodes: any connector, any callback, at RLlib's own speed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import tree
from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
from ray.rllib.core.columns import Columns
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from policyserver.common.acting.action_form import ActionForm
from policyserver.common.errors import PolicyUnknownError
from policyserver.common.spaces import leaves
from policyserver.server.policies.connectors.connector_pass import ConnectorPass, PipelineOutputs, Step, log_probs_of
from policyserver.server.policies.connectors.connector_pipelines import ConnectorPipelines
from policyserver.server.policies.connectors.connector_records import ConnectorOutputError, RecordedObservations, column_of
from policyserver.server.policies.connectors.episode_callbacks import EpisodeCallbacks
from policyserver.server.policies.connectors.live_episodes import EpisodeNumbers, LiveEpisode, PendingStep
from policyserver.server.policies.module.inference import NetPolicy, PolicyNet, UnsupportedModuleError
from policyserver.server.policies.policy import LIVE_NAME, Array, Choice, DrawKeys, Mask, ModuleOutputs, StepLayout, StepResult, StepRows

_NOT_RECORDED = (Columns.STATE_OUT, WEIGHTS_SEQ_NO)


class ConnectorPolicy(NetPolicy):
    """Run RLlib's connector pipelines, and the user's callbacks, on one `SingleAgentEpisode` per open episode.

    See the `Policy` protocol. A step whose question waited keeps its first decision, for connectors would see its observation twice. The
    rows of a pass go through the pipelines in one call, as the sub-environments of RLlib's own runner do, also those that end their
    episodes; what the net says about these is dropped. RLlib's `MeanStdFilter` does not learn from episodes that are not trained on; other
    connectors with statistics do, for RLlib has no way to tell them.

    If `decide` raises, or its rows are all refused, the states of all connectors are brought back by their own `set_state`; if only some
    rows are refused, connectors keep what they learned from these. Recorded are the newest observation, reward and info of an episode as
    connectors and callbacks leave them, and what the net and the module-to-env connectors give; what they change in older steps is not.
    """

    def __init__(
        self,
        net: PolicyNet,
        form: ActionForm,
        env_to_module: ConnectorPipelineV2,
        module_to_env: ConnectorPipelineV2,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        lookback: int = 1,
        state_every: int = 20,
        chunk_steps: int = 64,
        callbacks: EpisodeCallbacks | None = None,
        metrics: MetricsLogger | None = None,
    ) -> None:
        """Try copies of the pipelines out, to find out what they write and what the net gives.

        Args:
            net: The net.
            form: The two forms of its actions.
            env_to_module: RLlib's pipeline; from now on only the loop thread may touch it.
            module_to_env: Likewise.
            observation_space: Observations as clients send them.
            action_space: The environment's.
            lookback: Steps that connectors may look back at, RLlib's `episode_lookback_horizon`, and that a segment repeats.
            state_every: As in `StepLayout`.
            chunk_steps: Steps after which a live episode is cut to its look-back, as RLlib's runner cuts after a rollout fragment.
            callbacks: The user's callbacks about episodes.
            metrics: What connectors and callbacks log to; owned by the loop thread, see `take_metrics`.

        Raises:
            ConnectorOutputError: What the connectors write can't be recorded.
            UncopyableConnectorError: A connector can't be copied.
            UnsupportedModuleError: The module gives no actions, or columns that can't be recorded.
        """
        super().__init__(net)
        self._form = form
        self._space, self._action_space = observation_space, action_space
        self._lookback = max(lookback, 1)
        self._keeps_chunks = callbacks is not None and callbacks.reads_chunks
        self._metrics = metrics if metrics is not None else MetricsLogger()
        pipelines = ConnectorPipelines(env_to_module, module_to_env, self._metrics)
        self._passes = ConnectorPass(
            net, form, pipelines, observation_space, action_space, self._lookback, max(chunk_steps, 1), callbacks or None
        )
        self._numbers = EpisodeNumbers()
        self._live: dict[int, LiveEpisode] = {}
        self._shared_data: dict[str, Any] = {}
        self._uncommitted: PipelineOutputs | None = None
        self.initial_state = list(net.initial_state)
        trial = pipelines.trial()
        passes = ConnectorPass(net, form, trial, observation_space, action_space, self._lookback, 1, None)
        self.layout = self._try_out(passes, trial.env_to_module, state_every)
        pipelines.one_by_one = bool(net.initial_state) and net.explore and trial.net_chose

    # The protocol --------------------------------------------------------------------------------------------------------------------

    def decide(self, rows: StepRows) -> StepResult:
        """Choose actions. If it raises, nothing has changed.

        Raises:
            ConnectorOutputError: A connector wrote what can't be recorded.
            Exception: What a connector, a callback or the module raised.
        """
        self._take_back()
        done = self._uncommitted = self._run(rows)
        try:
            return self._decided(rows, done)
        except BaseException:
            self._take_back()
            raise

    def choose(self, name: str, episode_id: str, *, greedy: bool) -> Choice:
        """Choose the policy that learns, the only one with RLlib's own pipelines.

        Raises:
            PolicyUnknownError: Another one was named.
        """
        if name not in ("", LIVE_NAME):
            text = f"expected {LIVE_NAME!r}, the only one here, for some connector or callback has no array code, received {name!r}"
            raise PolicyUnknownError(f"policy: {text}", field="policy")
        return super().choose(name, episode_id, greedy=greedy)

    decides_again = False

    def decide_again(self, rows: StepRows) -> StepResult:
        """Raise a NotImplementedError: see the class."""
        raise NotImplementedError("the first decision of RLlib's own pipelines stands")

    def commit(self, rows: StepRows, decided: StepResult, kept: Mask) -> None:
        """Take over the steps of the rows that are kept, and take the others back."""
        done: PipelineOutputs = decided.pending
        self._uncommitted = None
        if not kept.any():
            done.undo()
            return
        self._shared_data = done.shared_data
        for slot, is_new, ends, keep, step in zip(
            rows.slots.tolist(), rows.is_new.tolist(), rows.ends.tolist(), kept.tolist(), done.steps, strict=True
        ):
            live = step.live
            if not keep:
                if step.savepoint is not None:
                    step.savepoint.restore()
                continue
            if is_new and not ends:
                self._numbers.take(live.index)
            if ends:
                self._drop(slot)
                continue
            if step.episode is not live.episode:
                if self._keeps_chunks:
                    live.chunks.append(live.episode)
                live.episode = step.episode
            live.pending = PendingStep(step.action, step.outputs)
            self._live[slot] = live

    def override(self, slot: int, outputs: Mapping[str, Array], action: Array) -> tuple[Array, npt.NDArray[np.float32] | None]:
        """Note that a client executed another action in the pending step of an episode."""
        pending = self._live[slot].pending
        assert pending is not None
        module_action = self._module_form(action)
        log_prob = log_probs_of(self._net, [pending.outputs], module_action)
        if log_prob is not None and not np.isfinite(log_prob).all():
            return module_action, log_prob  # which is refused
        pending.action = module_action[0]
        if log_prob is not None:
            pending.outputs[Columns.ACTION_LOGP] = log_prob[0]
        return module_action, log_prob

    def forget(self, slots: list[int]) -> None:
        """Drop episodes that were reaped. No callback hears of them, as with episodes that RLlib's runner resets."""
        for slot in slots:
            self._drop(slot)

    def take_metrics(self) -> dict[str, Any]:
        """Return what connectors and callbacks logged since the last call, as RLlib's `MetricsLogger.reduce` gives it."""
        metrics: dict[str, Any] = self._metrics.reduce()
        return metrics

    # What was decided ----------------------------------------------------------------------------------------------------------------

    def _run(self, rows: StepRows) -> PipelineOutputs:
        """Send the rows through the pipelines: RLlib's `explore` is one for all rows of a call, so greedy ones have a call of their own."""
        numbers = self._numbers.candidates()
        if rows.greedy is None or not rows.greedy.any():
            return self._passes.run(rows, self._live, numbers, self._shared_data)
        if rows.greedy.all():
            return self._passes.run(rows, self._live, numbers, self._shared_data, explore=False)
        exploring, greedy = np.flatnonzero(~rows.greedy), np.flatnonzero(rows.greedy)
        first = self._passes.run(rows.of_one_policy(exploring), self._live, numbers, self._shared_data)
        try:
            second = self._passes.run(rows.of_one_policy(greedy), self._live, numbers, first.shared_data, explore=False)
        except BaseException:
            first.undo()
            raise
        return first.followed_by(second, exploring, greedy)

    def _decided(self, rows: StepRows, done: PipelineOutputs) -> StepResult:
        self._take_given(rows, done.steps)
        asks = ~rows.ends
        asking = [done.steps[place] for place in np.flatnonzero(asks).tolist()]
        greedy = rows.greedy[asks] if rows.greedy is not None else np.zeros(len(asking), np.bool_)
        layout = self.layout
        for step in [step for step, is_greedy in zip(asking, greedy.tolist(), strict=True) if not is_greedy][
            :1
        ]:  # all have the same columns
            if unknown := sorted((step.outputs.keys() ^ layout.outputs.keys()) - set(_NOT_RECORDED)):
                raise ConnectorOutputError(
                    f"columns: expected {sorted(layout.outputs)} from the module and the module-to-env connectors, as when they were "
                    f"tried out, received {sorted(step.outputs)}, which differ in {unknown}; have them give the same columns at every step"
                )
        for place in np.flatnonzero(greedy).tolist():  # which no learner sees: the inference pass may give others than the exploration pass
            given = asking[place].outputs
            asking[place].outputs = {name: np.zeros(*leaf) for name, leaf in layout.outputs.items() if name not in given} | given
        outputs = {
            name: column_of(name, [step.outputs[name] for step in asking], leaf_shape) for name, leaf_shape in layout.outputs.items()
        }
        actions = column_of(Columns.ACTIONS, [step.action for step in asking], layout.action)
        executed = np.stack([step.executed for step in asking]) if asking else rows.actions[:0]
        after = [tree.flatten(step.outputs[Columns.STATE_OUT]) for step in asking] if self.initial_state else []
        return StepResult(
            observations=self._recorded.columns([step.episode.observations.data[-1] for step in done.steps]),
            rewards=np.array([_reward(step) for step in done.steps], np.float64),
            decisions=ModuleOutputs(actions, outputs.get(Columns.ACTION_LOGP), outputs, self._net.weights_seq_no),
            executed=executed,
            state_in=self._state_columns([step.state_in for step in asking]),
            state=self._state_columns(after),
            infos={place: info for place, step in enumerate(done.steps) if (info := step.episode.infos.data[-1])},
            pending=done,
        )

    def _take_given(self, rows: StepRows, steps: list[Step]) -> None:
        """Put the actions that clients chose themselves in the place of those that the net chose."""
        if not rows.given.size:
            return
        module_actions = self._module_form(rows.given_actions)
        given = [steps[place] for place in rows.given.tolist()]
        log_probs = log_probs_of(self._net, [step.outputs for step in given], module_actions)
        for number, step in enumerate(given):
            step.action, step.executed = module_actions[number].copy(), rows.given_actions[number]
            if log_probs is not None:
                step.outputs[Columns.ACTION_LOGP] = log_probs[number]

    def _module_form(self, actions: Array) -> Array:
        return self._form.from_environment(actions).astype(self.layout.action[1], copy=False)

    def _state_columns(self, states: list[list[Array]]) -> list[Array]:
        return [
            column_of(Columns.STATE_OUT, [state[place] for state in states], (leaf.shape, leaf.dtype))
            for place, leaf in enumerate(self.initial_state)
        ]

    def _take_back(self) -> None:
        """Undo a pass that was not committed."""
        done, self._uncommitted = self._uncommitted, None
        if done is not None:
            done.undo()

    def _drop(self, slot: int) -> None:
        if (live := self._live.pop(slot, None)) is not None:
            self._numbers.give(live.index)

    # The layout ----------------------------------------------------------------------------------------------------------------------

    def _try_out(self, passes: ConnectorPass, pipeline: ConnectorPipelineV2, state_every: int) -> StepLayout:
        """Send an episode of one step through copies of the pipelines."""
        row = self._trial_row()
        first = passes.run(replace(row, is_new=~row.is_new), {}, self._numbers.candidates(), {}).steps[0]
        written = [first.episode.observations.data[-1]]
        first.live.pending = PendingStep(first.action, first.outputs)
        second = passes.run(row, {0: first.live}, self._numbers.candidates(), {}).steps[0]
        written.append(second.episode.observations.data[-1])
        self._recorded = RecordedObservations.like(written, (first.episode.observation_space, self._space, pipeline.observation_space))
        module = type(self._net.module).__name__
        columns = {name: value for name, value in first.outputs.items() if name not in _NOT_RECORDED}
        if nested := sorted(name for name, value in columns.items() if not isinstance(value, np.ndarray | np.generic)):
            raise UnsupportedModuleError(
                f"{module}, module-to-env connectors: expected one array in each column, received others in {nested}"
            )
        action = np.asarray(first.action)
        if action.shape != self._form.shape:
            raise UnsupportedModuleError(f"{module}: expected actions of shape {list(self._form.shape)}, received {list(action.shape)}")
        return StepLayout(
            self._recorded.space,
            self._action_space,
            (action.shape, action.dtype),
            {name: (value.shape, value.dtype) for name, value in columns.items()},
            self._net.state_structure,
            state_every,
            self._lookback,
        )

    def _trial_row(self) -> StepRows:
        observations = []
        for number, leaf in enumerate(leaves(self._space, "observation")):
            space = copy.deepcopy(leaf.space)
            space.seed(number)
            value = np.asarray(space.sample(), leaf.dtype)
            if isinstance(space, gym.spaces.Box) and leaf.dtype.kind == "f":
                value = np.clip(np.clip(value, -1, 1), space.low, space.high)  # nothing that overflows
            observations.append(value[None])
        actions, state = np.zeros((1, *self._form.shape), self._form.dtype), [leaf[None] for leaf in self.initial_state]
        by = DrawKeys(np.zeros(1, np.uint64), np.zeros(1, np.int64))
        return StepRows.asking(np.zeros(1, np.int64), observations, actions, state, by)


def _reward(step: Step) -> float:
    if step.is_first:
        return 0.0
    reward = float(step.episode.rewards.data[-1])
    if not np.isfinite(reward):
        raise ConnectorOutputError(f"reward: expected a finite number from the env-to-module connectors, received {reward}")
    return reward
