"""The net that answers: a private copy of the RLModule, for inference alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import tree
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch import TorchRLModule

from policyserver.common.errors import PolicyUnknownError
from policyserver.common.server_stats import PolicyFigures
from policyserver.common.spaces import Array
from policyserver.server.policies.module.numpy_forward import NumpyForward
from policyserver.server.policies.policy import LIVE_NAME, Choice


class UnsupportedModuleError(ValueError):
    """An RLModule whose forward pass gives neither actions nor a distribution of them."""


class PolicyNet:
    """Run the forward pass of an RLModule. Owned by the loop thread.

    Two copies of the module are kept: the one that serves, and a spare one into which the next weights are loaded outside the loop
    thread; `swap` exchanges them between two batches. A copy that a `frozen` net has, too, never becomes the spare: that is made anew.
    """

    def __init__(self, module: TorchRLModule, *, explore: bool) -> None:
        """Copy the module, to run its exploration pass or its inference pass."""
        self._original = module
        self.module = copy.deepcopy(module).eval()
        self.written_out = NumpyForward.of(self.module)
        self._spare: TorchRLModule | None = None
        self._spare_written_out: NumpyForward | None = None
        self._is_shared = False
        """Whether a frozen net has the serving copy, too."""
        self.explore = explore
        self.distribution_class = module.get_exploration_action_dist_cls() if explore else module.get_inference_action_dist_cls()
        self.leaves_choice = False
        """Whether the pass gives the Q-values of a module that explores by chance (DQN's), for its caller to choose by."""
        self.weights_seq_no = 0
        self.state_structure: Any = None
        """The recurrent state at the beginning of an episode, a tree of float32 arrays; None for a stateless net."""
        if module.is_stateful():
            self.state_structure = tree.map_structure(lambda leaf: np.asarray(leaf, np.float32), dict(module.get_initial_state()))
        self.initial_state: list[Array] = tree.flatten(self.state_structure) if self.state_structure is not None else []
        self._steps_sampled_lifetime = 0

    def frozen(self) -> PolicyNet:
        """Return a net that goes on as this one is now, whatever is loaded later. Nothing is copied."""
        self._is_shared = True
        return copy.copy(self)

    def with_weights(self, weights: Mapping[str, Any], weights_seq_no: int, steps_sampled_lifetime: int) -> PolicyNet:
        """Return a net like this one with weights of its own, which stay. May be called from another thread, but not beside `load_spare`.

        Raises:
            Exception: What RLlib and torch raise of weights of another net.
        """
        other = copy.copy(self)
        other.module = copy.deepcopy(self._original)
        other.module.set_state(dict(weights))
        other.module.eval()
        other.written_out = NumpyForward.of(other.module) if self.written_out is not None else None
        other._spare = other._spare_written_out = None
        other.weights_seq_no, other._steps_sampled_lifetime = weights_seq_no, steps_sampled_lifetime
        return other

    def forward(self, columns: dict[str, Any], *, explore: bool | None = None) -> dict[str, Any]:
        """Run the exploration or the inference pass on a batch: tensors, or trees of them, by RLlib's column name, in and out.

        None takes the pass that the net was made for.
        """
        # The public methods would walk the whole module for each batch, to put it into the mode that it is in already.
        with torch.inference_mode():
            if self.leaves_choice:
                return _q_values(self.module, columns)
            if self.explore if explore is None else explore:
                return dict(self.module._forward_exploration(columns, t=self._steps_sampled_lifetime))
            return dict(self.module._forward_inference(columns))

    def log_probs_of(self, actions: Array, outputs: Mapping[str, Array]) -> npt.NDArray[np.float32] | None:
        """Return the log-probabilities of actions in steps where perhaps others were drawn.

        Args:
            actions: In the module's form, [n, ...].
            outputs: What the module gave for these steps, [n, ...] by column name.

        Returns:
            float32[n], nats; NaN if the module does not say how its actions are distributed, so that the core refuses them; None if it
            gives no log-probabilities at all.
        """
        if (inputs := outputs.get(Columns.ACTION_DIST_INPUTS)) is not None:
            distribution = self.distribution_class.from_logits(torch.from_numpy(inputs))
            return np.asarray(distribution.logp(torch.from_numpy(actions)).numpy(), np.float32)
        return np.full(len(actions), np.nan, np.float32) if Columns.ACTION_LOGP in outputs else None

    def leave_choice(self) -> None:
        """Give the Q-values from now on, if that is all that the module's own choice depends on beside chance."""
        exploration = getattr(type(self.module), "_forward_exploration", None)
        self.leaves_choice = self.explore and exploration is DefaultDQNTorchRLModule._forward_exploration

    @property
    def epsilon(self) -> float:
        """Share of the actions that DQN's module leaves to chance now."""
        schedule = self.module.epsilon_schedule
        schedule.update(self._steps_sampled_lifetime)
        return float(schedule.get_current_value())

    def load_spare(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Load weights into the spare copy. Called from another thread than `swap`, never both at once."""
        if self._spare is None:
            self._spare = copy.deepcopy(self._original).eval()
            self._spare_written_out = NumpyForward.of(self._spare)
        self._spare.load_state_dict(dict(state_dict))
        if self._spare_written_out is not None:
            self._spare_written_out.refresh()

    def swap(self, weights_seq_no: int) -> None:
        """Serve the weights loaded last."""
        if self._spare is not None:
            before, written_out = (None, None) if self._is_shared else (self.module, self.written_out)
            self.module, self._spare = self._spare, before
            self.written_out, self._spare_written_out = self._spare_written_out, written_out
            self._is_shared = False
        self.weights_seq_no = weights_seq_no

    def count_steps(self, steps_sampled_lifetime: int) -> None:
        """Take the number of steps sampled so far, on which a module's exploration schedule may depend."""
        self._steps_sampled_lifetime = steps_sampled_lifetime


def _q_values(module: Any, columns: dict[str, Any]) -> dict[str, Any]:
    """Run the part of DQN's pass that is not chance."""
    found = module.compute_q_values(columns)
    kept = {name: found[name] for name in (QF_PREDS, Columns.STATE_OUT) if name in found}
    return {Columns.ACTIONS: found[QF_PREDS].argmax(dim=-1), **kept}


class NetPolicy:
    """The part of a `Policy` that is its net's alone."""

    def __init__(self, net: PolicyNet) -> None:
        self._net = net

    @property
    def weights_seq_no(self) -> int:
        """Policy version served now."""
        return self._net.weights_seq_no

    def choose(self, name: str, episode_id: str, *, greedy: bool) -> Choice:
        """Choose the policy that learns, the only one here.

        Raises:
            PolicyUnknownError: Another one was named.
        """
        if name not in ("", LIVE_NAME):
            raise PolicyUnknownError(
                f"policy: expected {LIVE_NAME!r}, the only one that this server has, received {name!r}", field="policy"
            )
        return Choice(greedy=greedy, trains=not greedy)

    def note_answers(self, slots: Array, executed: Array) -> None:
        """Do nothing: nothing is kept of answers that are held back."""

    def shadow_figures(self) -> list[PolicyFigures]:
        """Return nothing: all that it decides is sent."""
        return []

    def load_spare(self, state_dict: Mapping[str, Any]) -> None:
        """Load weights, to be served from the next `swap` on. Called from another thread than everything else."""
        self._net.load_spare(state_dict)

    def swap(self, weights_seq_no: int) -> None:
        """Serve the weights loaded last."""
        self._net.swap(weights_seq_no)

    def count_steps(self, steps_sampled_lifetime: int) -> None:
        """Take the number of steps sampled by all env runners, on which exploration schedules depend."""
        self._net.count_steps(steps_sampled_lifetime)
