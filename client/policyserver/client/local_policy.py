"""A policy that acts without a server: read from the file that `policy-server export` wrote, computed in numpy."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple, Self

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from policyserver.client.array_file import Array
from policyserver.client.policy_file import PolicyOrigin, PolicyParts, read_policy
from policyserver.common.acting.chances import epsilon_greedy, passed, sums_of_chances
from policyserver.common.acting.keyed_draws import KeyedDraws, draw_key
from policyserver.common.acting.leaf_checks import leaf_checks
from policyserver.common.acting.observations import stacked
from policyserver.common.spaces import bounds, flatten, leaves
from policyserver.v1 import policy_file_pb2 as pb

_SQUASHED_LOG_STD = (-5.0, 2.0)  # MIN_LOG_NN_OUTPUT and MAX_LOG_NN_OUTPUT of ray.rllib.utils.numpy
_MOST_BYTES = 2**28


class LocalState(NamedTuple):
    """Where an episode is: what `LocalPolicy.act_from` needs to know of its earlier steps. It is never changed in place."""

    recurrent: list[Array]
    """The recurrent state, c and h, float32[1, size] each; empty for a net without memory."""
    frames: Array | None
    """The earlier observations where several are stacked, [num_frames - 1, height, width, 1]."""
    draw_key: int
    """What the episode's actions are drawn by."""
    step: int
    """Number of the next step, from 0."""


class LocalPolicy:
    """A policy that was taken away from its server. It learns nothing, and its filters' statistics stay as they are.

    One thread at a time may call `start_episode` and `act`; `act_from` and `forward` keep nothing, so that any may.
    """

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    origin: PolicyOrigin
    """The run, the checkpoint and the version."""

    def __init__(self, parts: PolicyParts, *, seed: int | None = None) -> None:
        """Take a policy's parts; see `load`."""
        self.observation_space, self.action_space, self.origin = parts.observation_space, parts.action_space, parts.origin
        self._net, self._rewrites, self._frame, self._form = parts.net, parts.rewrites, parts.frame, parts.form
        self._num_frames = parts.num_frames
        self._distribution, self._epsilon = parts.distribution, parts.epsilon
        self._draws = KeyedDraws(seed)
        self._leaves = leaves(parts.observation_space)
        self._checks = leaf_checks(parts.observation_space, "observation")
        self._plain_dtype, self._plain_shape, self._radius_squared = _plain(parts)
        self._episodes = 0
        self._values: Array | None = None
        """What a client executes for each number of a Discrete."""
        if self._distribution in (pb.DISTRIBUTION_CATEGORICAL, pb.DISTRIBUTION_Q_VALUES):
            self._values = self._form.to_environment(np.arange(parts.action_space.n))  # type: ignore[attr-defined]
        self._nvec = getattr(parts.action_space, "nvec", np.empty(0, np.int64))
        self._state = self.initial_state("0")

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, seed: int | None = None, max_bytes: int = _MOST_BYTES) -> Self:
        """Read a policy that `policy-server export --to FILE.npz` wrote. Nothing in the file is run.

        Args:
            path: The file.
            seed: Seed of the drawing of actions; None makes one. With the server's, an episode of the same id draws the same actions.
            max_bytes: The largest file that is read.

        Raises:
            PolicyFileError: The file is no policy; the text names what is wrong.
            OSError: It can't be read.
        """
        return cls(read_policy(Path(path), max_bytes), seed=seed)

    def start_episode(self, episode_id: str | None = None) -> None:
        """Forget the episode before. An id decides, with the seed, what is drawn; None takes the number of the episode."""
        self._episodes += 1
        self._state = self.initial_state(str(self._episodes) if episode_id is None else episode_id)

    def act(self, observation: Any, explore: bool = False) -> Any:
        """Return the action for the next observation of the episode, and remember it.

        Args:
            observation: A value of `observation_space`.
            explore: Whether the action is drawn; else it is the most likely one.

        Raises:
            InvalidInputError: No such value.
            ArithmeticError: The net's outputs are no numbers.
        """
        action, self._state = self.act_from(self._state, observation, explore)
        return action

    def initial_state(self, episode_id: str = "0") -> LocalState:
        """Return the state at the beginning of an episode."""
        size = self._net.recurrent[0].lstm.size if self._net.recurrent else 0
        recurrent = [np.zeros((1, size), np.float32) for _ in range(2 if size else 0)]
        frames = np.stack([self._frame] * (self._num_frames - 1)) if self._frame is not None else None
        return LocalState(recurrent, frames, draw_key(episode_id), 0)

    def act_from(self, state: LocalState, observation: Any, explore: bool = False) -> tuple[Any, LocalState]:
        """Return the action for an observation and the state after it, from the state before it; raises what `act` raises."""
        inputs, after = self.forward(state, observation)
        if self._values is not None:
            place = int(inputs.argmax())  # of numbers that are none the first, if there are any
            if inputs[place] != inputs[place]:
                raise _no_numbers(observation)
            if explore:
                place = self._drawn_place(inputs[None], state)
            return self._values[place], after
        if not np.isfinite(inputs).all():
            raise _no_numbers(observation)
        actions = self._parts(inputs, state, explore) if self._nvec.size else self._continuous(inputs, state, explore)
        return self._form.to_environment(actions[None])[0], after

    def forward(self, state: LocalState, observation: Any) -> tuple[Array, LocalState]:
        """Return what the net says, and the state after it.

        Returns:
            The inputs of the action distribution, float32[k]: logits, means and logarithms of standard deviations, or Q-values.
        """
        if (
            type(observation) is np.ndarray
            and observation.dtype == self._plain_dtype
            and observation.shape == self._plain_shape
            and observation.dot(observation) <= self._radius_squared
        ):
            row, frames = observation, None
        else:
            row, frames = self._row(observation, state)
        inputs, recurrent = self._net(row, state.recurrent)
        return inputs, LocalState(recurrent, frames, state.draw_key, state.step + 1)

    def _row(self, observation: Any, state: LocalState) -> tuple[Array, Array | None]:
        """Check an observation and do to it what is done before the net sees it."""
        columns = [leaf[None] for leaf in flatten(self.observation_space, observation, known=self._leaves)]
        for check, column in zip(self._checks, columns, strict=True):
            if check.bad_rows(column).size:
                raise check.value_error(column[0])
        for rewrite in self._rewrites:
            columns = rewrite(columns)
        (rows,) = columns
        frames = state.frames
        if frames is not None:
            frames, rows = np.concatenate((frames[1:], rows)), stacked(frames[None], rows)
        return np.asarray(rows[0], np.float32), frames

    def _drawn_place(self, inputs: Array, state: LocalState) -> int:
        """Draw a number of a Discrete."""
        if self._distribution == pb.DISTRIBUTION_Q_VALUES:
            return int(epsilon_greedy(inputs, self._epsilon, self._uniforms(state, 2))[0])
        return int(passed(sums_of_chances(inputs)[1], self._draws.uniform(*_by(state)))[0])

    def _parts(self, inputs: Array, state: LocalState, explore: bool) -> Array:
        """Choose the numbers of a MultiDiscrete, as the net counts them, int64[k]."""
        logits = np.split(inputs, np.cumsum(self._nvec)[:-1])
        if not explore:
            return np.array([part.argmax() for part in logits], np.int64)
        uniforms = self._uniforms(state, len(logits))[0]
        return np.array([passed(sums_of_chances(part[None])[1], uniforms[i : i + 1])[0] for i, part in enumerate(logits)], np.int64)

    def _continuous(self, inputs: Array, state: LocalState, explore: bool) -> Array:
        """Choose an action of a Box, as the net has it."""
        means, log_stds = np.split(inputs, 2)
        if not explore:
            return means.reshape(self._form.shape)
        normals = np.array([NormalDist().inv_cdf(uniform) for uniform in self._uniforms(state, len(means))[0].tolist()], np.float32)
        if self._distribution == pb.DISTRIBUTION_GAUSSIAN:
            drawn: Array = means + np.exp(log_stds) * normals
        else:
            drawn = np.tanh(means + np.exp(np.clip(log_stds, *_SQUASHED_LOG_STD)) * normals)
        return drawn.reshape(self._form.shape)

    def _uniforms(self, state: LocalState, lanes: int) -> npt.NDArray[np.float64]:
        return self._draws.uniforms(*_by(state), lanes)


def _by(state: LocalState) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    return np.array([state.draw_key], np.uint64), np.array([state.step], np.int64)


def _plain(parts: PolicyParts) -> tuple[Any, tuple[int, ...] | None, float]:
    """Return dtype and shape of observations that the net takes as they are, and the square of a radius within which all are valid.

    One product tells that the usual observation is finite and in its space; one that it doesn't tell of is looked at closely.
    """
    space = parts.observation_space
    if (
        parts.rewrites
        or parts.frame is not None
        or not isinstance(space, gym.spaces.Box)
        or space.dtype != np.float32
        or len(space.shape) != 1
    ):
        return None, None, 0.0
    low, high = bounds(space)
    radius = max(float(min(np.min(high, initial=np.inf), -np.max(low, initial=-np.inf))), 0.0)
    # A little less, for the product is rounded; and no infinity is less than the largest number.
    return space.dtype, space.shape, min(radius * radius * (1.0 - 1e-5), float(np.finfo(np.float32).max))


def _no_numbers(observation: Any) -> ArithmeticError:
    return ArithmeticError(f"observation: expected one for which the net gives numbers, received {str(observation)[:200]}")
