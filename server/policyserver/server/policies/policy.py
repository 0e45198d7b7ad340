"""The seam between the episode core, which knows episodes, and what decides their actions, which knows RLlib.

Two policies stand behind it. `VectorizedPolicy` does what RLlib's default connectors, and the common ones, do on whole batches of arrays.
`ConnectorPolicy` runs any connector pipeline of RLlib's on live episodes. `NamedPolicies` adds policies that don't learn to the former. All
are owned by the loop thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from ray.rllib.core.columns import Columns

from policyserver.common.server_stats import PolicyFigures

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
LeafShape = tuple[tuple[int, ...], np.dtype[Any]]
"""Shape and dtype of one leaf of a space."""
LIVE = 0
"""Number of the policy that learns; the others that a serving process holds have numbers of their own."""
LIVE_NAME = "live"
"""What episodes call it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What decides the actions of an episode."""

    number: int = LIVE
    """Of the policy."""
    name: str = LIVE_NAME
    """Of the policy, as it is recorded."""
    greedy: bool = False
    """Whether the most likely actions are taken; else they are drawn as the algorithm explores."""
    trains: bool = True
    """Whether the learner can use the episode's steps."""


@dataclass(frozen=True, slots=True)
class StepLayout:
    """What one recorded step consists of."""

    observation_space: gym.Space[Any]
    """Space of the observations as they are recorded, after connectors that rewrite them."""
    action_space: gym.Space[Any]
    """The environment's action space; recorded actions are in the RLModule's form of it."""
    action: LeafShape
    """Shape and dtype of an action as the RLModule gives it."""
    outputs: dict[str, LeafShape]
    """What the RLModule gives for each step beside the action and the recurrent state, by RLlib's column name."""
    initial_state: Any
    """The recurrent net's state at the beginning of an episode, a tree of arrays; None for a stateless net."""
    state_every: int
    """The learner reads the recurrent state before every `state_every`-th step of a segment: `max_seq_len`, or 1 from a replay buffer."""
    lookback: int
    """Steps that a segment repeats of the one before it, at least 1."""
    carried: int = 0
    """Newest steps of a full page that wait for the next segment, so that this one is not shorter, however soon its episode ends: a
    replay buffer draws no returns of n steps from less than n of them. The recurrent state is then kept for every step."""


@dataclass(frozen=True, slots=True)
class DrawKeys:
    """What the actions of n rows are drawn by."""

    keys: npt.NDArray[np.uint64]
    """Of the episodes, uint64[n]: a hash of the id that began each."""
    steps: npt.NDArray[np.int64]
    """Number of each row in its episode, int64[n]."""

    def select(self, rows: Array) -> DrawKeys:
        """Return those of some rows."""
        return DrawKeys(self.keys[rows], self.steps[rows])


@dataclass(slots=True)
class StepRows:
    """The rows that one pass applies, n of them, in the order they came."""

    slots: npt.NDArray[np.int64]
    """Slots of the episodes, int64[n]; before `commit`, that of a new episode is meaningless."""
    is_new: Mask
    """Whether the row begins its episode, bool[n]."""
    ends: Mask
    """Whether the row ends its episode, bool[n]; every other row asks for an action."""
    terminated: Mask
    """Whether that end is the environment's (terminated) and not a cut (truncated), bool[n]."""
    training: Mask
    """Whether the episode is trained on, bool[n]."""
    rewards: npt.NDArray[np.float64]
    """Rewards of the steps that the rows complete, float64[n]; 0 in rows that begin an episode."""
    observations: list[Array]
    """As the client sent them, one array per leaf of the observation space, [n, ...]."""
    infos: dict[int, dict[str, Any]]
    """Infos by row."""
    actions: Array
    """The actions of the steps that the rows complete, as the client executed them, [n, *action shape]; zeros in new episodes."""
    state: list[Array]
    """What `Policy.initial_state` describes, leaf by leaf, as the newest step of each episode left it, [n, ...]."""
    given: npt.NDArray[np.int64]
    """Rows whose actions the client chose itself, indices."""
    given_actions: Array
    """These actions, as the client executed them."""
    drawn_by: DrawKeys
    """What the other actions are drawn by."""
    policies: npt.NDArray[np.int32] | None = None
    """Numbers of the policies that decide, int32[n]; None: the one that learns decides all."""
    greedy: Mask | None = None
    """Whether the most likely action is taken, bool[n]; None: in no row."""
    held: Mask | None = None
    """At `commit`: whose answers are held back until the learner has room, bool[n]; None: of no row."""
    begun: dict[int, tuple[str, str]] = field(default_factory=dict)
    """At `commit`: client and id of the episodes that begin, by row."""

    def __len__(self) -> int:
        return len(self.slots)

    def of_one_policy(self, places: npt.NDArray[np.int64]) -> StepRows:
        """Take some of the rows, by ascending places, which one policy decides."""
        place_of = np.full(len(self), -1)
        place_of[places] = np.arange(len(places))
        given = place_of[self.given]
        infos = {int(place_of[place]): info for place, info in self.infos.items() if place_of[place] >= 0}
        return StepRows(
            self.slots[places],
            self.is_new[places],
            self.ends[places],
            self.terminated[places],
            self.training[places],
            self.rewards[places],
            [leaf[places] for leaf in self.observations],
            infos,
            self.actions[places],
            [leaf[places] for leaf in self.state],
            given[given >= 0],
            self.given_actions[given >= 0],
            self.drawn_by.select(places),
            greedy=None if self.greedy is None else self.greedy[places],
        )

    @classmethod
    def asking(cls, slots: Array, observations: list[Array], actions: Array, state: list[Array], drawn_by: DrawKeys) -> StepRows:
        """Make rows of episodes that go on and are trained on, without rewards and given actions."""
        no, none = np.zeros(len(slots), np.bool_), np.empty(0, np.int64)
        return cls(slots, no, no, no, ~no, np.zeros(len(slots)), observations, {}, actions, state, none, actions[:0], drawn_by)


@dataclass(slots=True)
class ModuleOutputs:
    """What was decided for the rows that asked, m of them, with everything the learner needs of it."""

    actions: Array
    """[m, *action shape], in the RLModule's form."""
    log_probs: npt.NDArray[np.float32] | None
    """float32[m], nats; None from a module that has no distribution of actions, such as DQN's."""
    outputs: dict[str, Array]
    """The other columns that are recorded, [m, ...], keys as in `StepLayout.outputs`; log-probabilities are in it, too."""
    weights_seq_no: int | npt.NDArray[np.int64]
    """Policy version; of each row, int64[m], where several policies decided."""

    @property
    def sound(self) -> Mask:
        """Which rows were answered with numbers, and with a distribution that has the action it gave, bool[m]."""
        sound = np.ones(len(self.actions), np.bool_)
        if self.actions.dtype.kind == "f":
            sound &= np.isfinite(self.actions).all(axis=tuple(range(1, self.actions.ndim)))
        if self.log_probs is not None:
            sound &= np.isfinite(self.log_probs)
        if (inputs := self.outputs.get(Columns.ACTION_DIST_INPUTS)) is not None:
            sound &= ~np.isnan(inputs).any(axis=tuple(range(1, inputs.ndim)))
        return sound

    def select(self, rows: Array) -> ModuleOutputs:
        """Return the decisions of some rows."""
        log_probs = self.log_probs[rows] if self.log_probs is not None else None
        version = self.weights_seq_no if isinstance(self.weights_seq_no, int) else self.weights_seq_no[rows]
        return ModuleOutputs(self.actions[rows], log_probs, {name: column[rows] for name, column in self.outputs.items()}, version)

    @classmethod
    def joined(cls, places: Sequence[npt.NDArray[np.int64]], parts: Sequence[ModuleOutputs]) -> ModuleOutputs:
        """Put the decisions of several policies, or passes, together, those of each at its places among all."""
        versions = [np.broadcast_to(np.int64(part.weights_seq_no), len(part.actions)) for part in parts]
        log_probs = [part.log_probs for part in parts if part.log_probs is not None]
        return cls(
            scattered(places, [part.actions for part in parts]),
            scattered(places, log_probs) if len(log_probs) == len(parts) else None,
            {name: scattered(places, [part.outputs[name] for part in parts]) for name in parts[0].outputs},
            scattered(places, versions),
        )


def scattered(places: Sequence[npt.NDArray[np.int64]], parts: Sequence[Array]) -> Array:
    """Put the rows of several arrays, [k, ...] each, at their places of one, which they fill."""
    joined = np.empty((sum(map(len, places)), *parts[0].shape[1:]), parts[0].dtype)
    for place, part in zip(places, parts, strict=True):
        joined[place] = part
    return joined


@dataclass(slots=True)
class StepResult:
    """The answer of a policy to `StepRows`. Nothing has changed yet: that is what `commit` is for."""

    observations: list[Array]
    """The observations as they are recorded, one array per leaf of `StepLayout.observation_space`, of all n rows."""
    rewards: npt.NDArray[np.float64]
    """The rewards as they are recorded, of all n rows."""
    decisions: ModuleOutputs
    """Of the m rows that ask."""
    executed: Array
    """The actions as clients execute them, [m, *action shape]."""
    state_in: list[Array]
    """The recurrent state that the decisions started from, leaf by leaf, [m, ...]."""
    state: list[Array]
    """What `Policy.initial_state` describes after these steps, leaf by leaf, [m, ...]; its first leaves are the recurrent state."""
    infos: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Infos as they are recorded, by row."""
    pending: Any = None
    """What `commit` needs."""


class Policy(Protocol):
    """What decides the actions of episodes."""

    layout: StepLayout
    initial_state: list[Array]
    """State that the episode table keeps per episode, as it is at the beginning: the recurrent state, then what else the policy needs."""

    @property
    def weights_seq_no(self) -> int:
        """Policy version served now, of the policy that learns."""

    def choose(self, name: str, episode_id: str, *, greedy: bool) -> Choice:
        """Choose what decides an episode that names a policy, or none (""). Nothing changes that an episode which doesn't begin would miss.

        Raises:
            PolicyServerError: There is no such policy, or no room for it.
        """

    def decide(self, rows: StepRows) -> StepResult:
        """Choose actions. If it raises, nothing has changed."""

    decides_again: bool
    """Whether it can decide a step anew that its caller has no answer to yet; else its first decision stands."""

    def decide_again(self, rows: StepRows) -> StepResult:
        """Choose the actions of pending steps anew: `rows.observations` are those that were recorded, `rows.state` the one before them."""

    def commit(self, rows: StepRows, decided: StepResult, kept: Mask) -> None:
        """Take over what `decide` prepared. By now `rows.slots` are final; rows that are not `kept`, bool[n], were refused."""

    def note_answers(self, slots: npt.NDArray[np.int64], executed: Array) -> None:
        """Note that answers which were held back are sent: of n episodes, by slot, with what their clients execute, [n, *action shape]."""

    def override(self, slot: int, outputs: Mapping[str, Array], action: Array) -> tuple[Array, npt.NDArray[np.float32] | None]:
        """Note that a client executed another action in the pending step of an episode.

        Args:
            slot: The episode.
            outputs: The recorded columns of that step, each with leading axis 1; empty if the episode is not trained on.
            action: What the client executed, [1, *action shape].

        Returns:
            The action in the RLModule's form and its log-probability under the distribution of that step, both with leading axis 1.
        """

    def forget(self, slots: list[int]) -> None:
        """Drop what is kept of episodes that were reaped; those that ended with a row are forgotten by `commit`."""

    def load_spare(self, state_dict: Mapping[str, Any]) -> None:
        """Load weights, to be served from the next `swap` on. Called from another thread than everything else."""

    def swap(self, weights_seq_no: int) -> None:
        """Serve the weights loaded last."""

    def count_steps(self, steps_sampled_lifetime: int) -> None:
        """Take the number of steps sampled by all env runners, on which exploration schedules depend."""

    def shadow_figures(self) -> list[PolicyFigures]:
        """Return what is known of policies whose actions are never sent."""

    def take_metrics(self) -> dict[str, Any]:
        """Return what connectors and callbacks logged since the last call, in the form of RLlib's `MetricsLogger.reduce`."""
