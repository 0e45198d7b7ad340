"""The net that answers: a private copy of the RLModule, run on whole batches of observations."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from ray.rllib.core.rl_module.torch import TorchRLModule

from .trajectories import Decisions, StepLayout

Array = npt.NDArray[Any]


class UnsupportedSpaceError(ValueError):
    """A space that the served net can't be fed or read in."""


class UnsupportedModuleError(ValueError):
    """An RLModule that does not say how its actions are distributed."""


class ActionForm:
    """Translate between actions as the RLModule's distribution gives them and as the environment takes them.

    A bounded Box is squashed to [-1, 1] on the net's side, like RLlib's `NormalizeAndClipActions` connector does with its default
    `normalize_actions=True`; a Discrete counts from 0 there.
    """

    def __init__(self, space: gym.Space[Any], *, normalize: bool, clip: bool) -> None:
        self._space = space
        self._scale: tuple[Array, Array] | None = None
        self.shape: tuple[int, ...]
        self.dtype: np.dtype[Any]
        self._clip = clip
        if isinstance(space, gym.spaces.Box):
            bounded = bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())
            if normalize and bounded:
                self._scale = space.low, (space.high - space.low) / 2
            self.shape, self.dtype = space.shape, np.dtype("float32")
        elif isinstance(space, gym.spaces.Discrete):
            self.shape, self.dtype = (), np.dtype("int64")
        else:
            raise UnsupportedSpaceError(f"action space: expected a Box or a Discrete, got {space}")

    def to_environment(self, actions: Array) -> Array:
        """Return the actions a client executes, of the space's dtype."""
        if isinstance(self._space, gym.spaces.Discrete):
            return actions + int(self._space.start)
        assert isinstance(self._space, gym.spaces.Box)
        if self._scale is not None:
            low, half = self._scale
            actions = low + (np.clip(actions, -1.0, 1.0) + 1.0) * half
        elif self._clip:
            actions = np.clip(actions, self._space.low, self._space.high)
        return actions.astype(self._space.dtype, copy=False)

    def from_environment(self, actions: Array) -> Array:
        """Return what the net would have had to give for these executed actions."""
        if isinstance(self._space, gym.spaces.Discrete):
            return actions.astype(np.int64) - int(self._space.start)
        actions = actions.astype(np.float32)
        if self._scale is not None:
            low, half = self._scale
            actions = ((actions - low) / half - 1.0).astype(np.float32)
        return actions


class PolicyNet:
    """Run an RLModule on batches and draw actions from its distribution. Owned by the loop thread.

    Two copies of the module are kept: the one that serves, and a spare one into which the next weights are loaded outside the loop
    thread; `swap` exchanges them between two batches.
    """

    def __init__(
        self, module: TorchRLModule, observation_space: gym.Space[Any], actions: ActionForm, *, explore: bool, seed: int | None
    ) -> None:
        if not isinstance(observation_space, gym.spaces.Box):
            raise UnsupportedSpaceError(f"observation space: expected a Box, got {observation_space}")
        self._serving, self._spare = (copy.deepcopy(module).eval() for _ in range(2))
        self._actions = actions
        self._explore = explore
        self._distribution = module.get_exploration_action_dist_cls()
        self._is_categorical = self._distribution is TorchCategorical
        self._random = np.random.default_rng(seed)
        self.weights_seq_no = 0
        self.is_stateful = bool(module.is_stateful())
        initial = (
            tree.map_structure(lambda leaf: np.asarray(leaf, np.float32), dict(module.get_initial_state())) if self.is_stateful else None
        )
        self._state_structure = initial
        self.initial_state: list[Array] = tree.flatten(initial) if self.is_stateful else []
        self._observation_dtype = torch.float32 if np.issubdtype(observation_space.dtype, np.floating) else None
        sample = np.zeros((1, *observation_space.shape), observation_space.dtype)
        dist_inputs = self._forward(sample, [leaf[None] for leaf in self.initial_state])[0]
        self.layout = StepLayout(
            observation=(observation_space.shape, np.dtype(observation_space.dtype)),
            action=(actions.shape, actions.dtype),
            dist_inputs=dist_inputs.shape[-1],
            initial_state=initial,
            max_seq_len=int(module.model_config.get("max_seq_len", 20)) if isinstance(module.model_config, Mapping) else 20,
        )

    def load_spare(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Load weights into the spare copy. Called from another thread than `swap`, never both at once."""
        self._spare.load_state_dict(dict(state_dict))

    def swap(self, weights_seq_no: int) -> None:
        """Serve the weights loaded last."""
        self._serving, self._spare = self._spare, self._serving
        self.weights_seq_no = weights_seq_no

    def decide(self, observations: Array, state: list[Array], given: Array, given_actions: Array) -> tuple[Decisions, list[Array]]:
        """Choose actions for n observations.

        Args:
            observations: [n, *observation shape].
            state: Recurrent state before the step, leaf by leaf, [n, ...].
            given: Rows whose actions were chosen by somebody else, indices.
            given_actions: Those actions in the environment's form; their log-probabilities are computed like the others'.

        Returns:
            The decisions, and the recurrent state after the step.
        """
        inputs, state_out = self._forward(observations, state)
        if self._is_categorical:
            actions, log_probs = self._decide_categorical(inputs, given, given_actions)
        else:
            actions, log_probs = self._decide_generic(inputs, given, given_actions)
        return Decisions(actions, log_probs, inputs, self.weights_seq_no), state_out

    def log_probs(self, dist_inputs: Array, actions: Array) -> npt.NDArray[np.float32]:
        """Return the log-probabilities of executed actions under distributions computed before."""
        distribution = self._distribution.from_logits(torch.from_numpy(dist_inputs))
        own = torch.from_numpy(self._actions.from_environment(actions))
        return distribution.logp(own).numpy().astype(np.float32)  # type: ignore[no-any-return]

    def _forward(self, observations: Array, state: list[Array]) -> tuple[Array, list[Array]]:
        batch: dict[str, Any] = {Columns.OBS: torch.from_numpy(np.ascontiguousarray(observations)).to(self._observation_dtype)}
        if self.is_stateful:
            batch[Columns.OBS] = batch[Columns.OBS].unsqueeze(1)
            batch[Columns.STATE_IN] = tree.unflatten_as(self._state_structure, [torch.from_numpy(leaf) for leaf in state])
        with torch.inference_mode():
            out = self._serving._forward_exploration(batch) if self._explore else self._serving._forward_inference(batch)
        if Columns.ACTION_DIST_INPUTS not in out:
            raise UnsupportedModuleError(
                f"{type(self._serving).__name__}: expected a module whose forward pass gives {Columns.ACTION_DIST_INPUTS!r}, "
                f"as PPO's does, received {sorted(out)}"
            )
        inputs = out[Columns.ACTION_DIST_INPUTS]
        if not self.is_stateful:
            return inputs.numpy(), []
        return inputs.squeeze(1).numpy(), [leaf.numpy() for leaf in tree.flatten(out[Columns.STATE_OUT])]

    def _decide_categorical(self, logits: Array, given: Array, given_actions: Array) -> tuple[Array, npt.NDArray[np.float32]]:
        """Draw by the Gumbel-max trick, which needs one pass over the logits and no normalisation."""
        scores = logits + self._random.gumbel(size=logits.shape) if self._explore else logits
        actions = scores.argmax(axis=-1)
        if given.size:
            actions[given] = self._actions.from_environment(given_actions)
        shifted = logits - logits.max(axis=-1, keepdims=True)
        log_probs = shifted[np.arange(len(actions)), actions] - np.log(np.exp(shifted).sum(axis=-1))
        return actions, log_probs.astype(np.float32)

    def _decide_generic(self, inputs: Array, given: Array, given_actions: Array) -> tuple[Array, npt.NDArray[np.float32]]:
        distribution = self._distribution.from_logits(torch.from_numpy(inputs))
        if not self._explore:
            distribution = distribution.to_deterministic()
        actions = distribution.sample()
        if given.size:
            actions[torch.from_numpy(given)] = torch.from_numpy(self._actions.from_environment(given_actions))
        log_probs = distribution.logp(actions).numpy() if self._explore else np.zeros(len(inputs), np.float32)
        return actions.numpy(), log_probs
