"""One pass of rows through live episodes, RLlib's pipelines and the net, in the order of RLlib's own env runner."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from policyserver.common.acting.action_form import ActionForm
from policyserver.common.spaces import unflatten
from policyserver.server.policies.connectors.connector_pipelines import ConnectorPipelines, RestoreState
from policyserver.server.policies.connectors.connector_records import ConnectorOutputError
from policyserver.server.policies.connectors.episode_callbacks import CREATED, END, START, STEP, EpisodeCallbacks
from policyserver.server.policies.connectors.live_episodes import LiveEpisode, Savepoint
from policyserver.server.policies.module.inference import PolicyNet, UnsupportedModuleError
from policyserver.server.policies.policy import Array, StepRows


@dataclass(slots=True)
class Step:
    """One row on its way through the pipelines."""

    live: LiveEpisode
    """Whose it is; nothing of it has changed but its newest chunk, if `savepoint` is there."""
    episode: SingleAgentEpisode
    """The chunk that the row was added to: a new one if the episode is new, or was due to be cut."""
    savepoint: Savepoint | None
    """How the chunk was before; None for a new one."""
    action: Any = None
    """What was chosen, in the RLModule's form; None in a row that ends its episode."""
    executed: Any = None
    """What was chosen, as the client executes it."""
    outputs: dict[str, Any] = field(default_factory=dict)
    """What RLlib's runner stores with the action, by column name."""
    state_in: list[Array] = field(default_factory=list)
    """The recurrent state that the choice started from, leaf by leaf."""

    @property
    def is_first(self) -> bool:
        """Whether the row begins its episode."""
        return self.live.pending is None


@dataclass(slots=True)
class PipelineOutputs:
    """What a pass did, which can be taken back."""

    steps: list[Step]
    """In the order of the rows."""
    shared_data: dict[str, Any]
    """What connectors leave for each other."""
    restore_connectors: list[RestoreState]
    """Bring the connectors back to the states they had before."""

    def followed_by(self, later: PipelineOutputs, places: npt.NDArray[np.int64], later_places: npt.NDArray[np.int64]) -> PipelineOutputs:
        """Return what this pass and the one after it did, of whose rows the places among all are given."""
        steps = dict(zip([*places.tolist(), *later_places.tolist()], [*self.steps, *later.steps], strict=True))
        restore = [*later.restore_connectors, *self.restore_connectors]
        return PipelineOutputs([steps[place] for place in sorted(steps)], later.shared_data, restore)

    def undo(self) -> None:
        """Take the rows back out of their episodes and bring the connectors back to the states they had before."""
        for step in self.steps:
            if step.savepoint is not None:
                step.savepoint.restore()
        for restore in self.restore_connectors:
            restore()


class ConnectorPass:
    """Send rows through the pipelines."""

    def __init__(
        self,
        net: PolicyNet,
        form: ActionForm,
        pipelines: ConnectorPipelines,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        lookback: int,
        chunk_steps: int,
        callbacks: EpisodeCallbacks | None,
    ) -> None:
        """Take what the passes work with; see `ConnectorPolicy` for the arguments."""
        self._net, self._form, self._pipelines = net, form, pipelines
        self._space, self._action_space = observation_space, action_space
        self._starts_at = np.asarray(getattr(action_space, "start", 0), np.int64)
        self._lookback, self._chunk_steps = lookback, chunk_steps
        self._callbacks = callbacks

    def run(
        self,
        rows: StepRows,
        live: Mapping[int, LiveEpisode],
        numbers: Iterator[int],
        shared_data: dict[str, Any],
        *,
        explore: bool | None = None,
    ) -> PipelineOutputs:
        """Add rows to their episodes and choose their actions. If it raises, nothing has changed.

        Args:
            rows: The rows.
            live: The open episodes by slot.
            numbers: Free numbers for new episodes; none is taken yet.
            shared_data: What the pass before left.
            explore: RLlib's `explore` of the pipelines and the net; None leaves it as the net was made for.
        """
        explore = self._net.explore if explore is None else explore
        done = PipelineOutputs([], dict(shared_data), self._pipelines.savepoint())
        try:
            for place in range(len(rows)):
                done.steps.append(self._begin(rows, place, live, numbers))
            self._send(rows, done, explore)
        except BaseException:
            done.undo()
            raise
        return done

    def _begin(self, rows: StepRows, place: int, live: Mapping[int, LiveEpisode], candidates: Any) -> Step:
        if rows.is_new[place]:
            episode = SingleAgentEpisode(observation_space=self._space, action_space=self._action_space)
            return Step(LiveEpisode(episode, next(candidates)), episode, None)
        known = live[int(rows.slots[place])]
        if len(known.episode) >= self._chunk_steps:
            return Step(known, known.episode.cut(len_lookback_buffer=self._lookback), None)
        return Step(known, known.episode, Savepoint(known.episode))

    def _send(self, rows: StepRows, done: PipelineOutputs, explore: bool) -> None:
        steps, episodes = done.steps, [step.episode for step in done.steps]
        columns = self._extend(rows, steps)
        batch = self._pipelines.to_module(self._net, episodes, done.shared_data, columns, rows.training, explore=explore)
        for step in steps:
            self._call(START if step.is_first else STEP, step)
            if step.episode.is_done:
                self._call(END, step)
        if rows.ends.all():
            return
        # The net gets the rows that end their episodes too: connectors may have put anything into the batch, which can't be taken apart.
        state_in = [leaf.numpy() for leaf in tree.flatten(batch[Columns.STATE_IN])] if self._net.initial_state else []
        self._read(steps, self._pipelines.to_environment(self._net, batch, episodes, done.shared_data, explore=explore), explore)
        for place, step in enumerate(steps):
            step.state_in = [leaf[place] for leaf in state_in]

    def _extend(self, rows: StepRows, steps: list[Step]) -> dict[str, Any]:
        """Add rows to their episodes; return the columns that RLlib's runner gives to the connectors beside the episodes."""
        truncated = rows.ends & ~rows.terminated
        observations, infos, actions = [], [], []
        for place, step in enumerate(steps):
            # Copies, which keep no other row of the message alive and which connectors may write to.
            observation = unflatten(self._space, [leaf[place].copy() for leaf in rows.observations])
            info = copy.copy(rows.infos.get(place, {}))
            episode, pending = step.episode, step.live.pending
            if pending is None:
                self._call(CREATED, step)
                episode.add_env_reset(observation, info)
                actions.append(np.zeros(self._form.shape, self._form.dtype))
            else:
                episode.add_env_step(observation, pending.action, rows.rewards[place], info, extra_model_outputs=pending.outputs)
                actions.append(pending.action)
            episode.is_terminated, episode.is_truncated = bool(rows.terminated[place]), bool(truncated[place])
            observations.append(observation)
            infos.append(info)
        return {
            Columns.OBS: observations,
            Columns.ACTIONS: actions,
            Columns.REWARDS: rows.rewards,
            Columns.INFOS: infos,
            Columns.TERMINATEDS: rows.terminated,
            Columns.TRUNCATEDS: truncated,
        }

    def _call(self, name: str, step: Step) -> None:
        if self._callbacks is not None:
            live = step.live
            chunks = live.chunks if step.episode is live.episode else [*live.chunks, live.episode]
            self._callbacks.call(name, step.episode, live.index, self._net.module, self._pipelines.metrics, chunks)

    def _read(self, steps: list[Step], columns: dict[str, Any], explore: bool) -> None:
        """Take each step's part out of what the module-to-env pipeline gives."""
        if Columns.ACTIONS not in columns:
            raise UnsupportedModuleError(
                f"module-to-env connectors: expected the column {Columns.ACTIONS!r} from them or from {type(self._net.module).__name__}, "
                f"received {sorted(columns)}"
            )
        for name, column in columns.items():
            if not isinstance(column, list | np.ndarray) or len(column) != len(steps):
                length = len(column) if isinstance(column, list | np.ndarray) else type(column).__name__
                raise ConnectorOutputError(f"{name}: expected {len(steps)} items, one per episode, from the connectors, received {length}")
        actions = columns.pop(Columns.ACTIONS)
        executed = columns.pop(Columns.ACTIONS_FOR_ENV, actions)
        for number, step in enumerate(steps):
            step.action, step.executed = _own(actions[number]), self._executed(executed[number])
            step.outputs = {name: _own(column[number]) for name, column in columns.items()}
            step.outputs[WEIGHTS_SEQ_NO] = self._net.weights_seq_no
        if not explore and {Columns.ACTION_LOGP, Columns.ACTION_DIST_INPUTS} <= columns.keys():
            # RLlib's are zeros there, of the actions' dtype and shape.
            log_probs = log_probs_of(self._net, [step.outputs for step in steps], np.stack([step.action for step in steps]))
            assert log_probs is not None
            for step, log_prob in zip(steps, log_probs, strict=True):
                step.outputs[Columns.ACTION_LOGP] = log_prob

    def _executed(self, action: Any) -> Array:
        executed = np.asarray(action)
        if executed.shape != self._form.shape:
            raise ConnectorOutputError(
                f"{Columns.ACTIONS_FOR_ENV}: expected shape {list(self._form.shape)} from the module-to-env connectors, "
                f"received {list(executed.shape)}"
            )
        if not isinstance(self._action_space, gym.spaces.Box):
            executed = executed + self._starts_at  # RLlib's connectors count from 0
        return executed.astype(self._action_space.dtype)


def log_probs_of(net: PolicyNet, outputs: list[dict[str, Any]], actions: Array) -> Array | None:
    """Return the log-probabilities of actions, [n, ...], in n steps with these outputs; see `PolicyNet.log_probs_of`."""
    names = {Columns.ACTION_DIST_INPUTS, Columns.ACTION_LOGP} & outputs[0].keys()
    return net.log_probs_of(actions, {name: np.stack([row[name] for row in outputs]) for name in names})


def _own(value: Any) -> Any:
    """Copy an item out of a batch, which would be kept alive by it as a whole."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: _own(part) for key, part in value.items()}
    return value if isinstance(value, np.generic) else tree.map_structure(np.array, value)
