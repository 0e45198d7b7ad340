"""One step of many episodes through the net, by the way that is fastest for their number."""

from __future__ import annotations

import copy
import logging
import timeit
from collections.abc import Callable
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tree
from ray.rllib.core.columns import Columns

from policyserver.common.spaces import Array, unflatten_batch
from policyserver.server.policies.module.inference import PolicyNet, UnsupportedModuleError

logger = logging.getLogger(__name__)

Backend = Literal["auto", "numpy", "torch"]

_MEASURED_ROWS = (1, 16, 64, 256)
_MEASURED_TIMES = 5
_TOLERANCE = 1e-3  # far above what the order of additions makes, far below what a wrong formula would


class ForwardPass:
    """Run a net's pass on the leaves of a batch of observations. Owned by the loop thread."""

    def __init__(self, net: PolicyNet, zeros: list[Array], space: gym.Space[Any], backend: Backend) -> None:
        """Find out what the net gives, and which way is the fastest for how many rows.

        Args:
            net: The net.
            zeros: One row of observations as the net sees them, one array per leaf, [1, ...].
            space: Their structure.
            backend: `auto` measures; nets that are not written out in numpy always run in torch.

        Raises:
            UnsupportedModuleError: The module gives neither actions nor a distribution of them, or columns that are no tensors.
        """
        self.net, self._space = net, space
        self._one_by_one = False
        self._numpy_rows = 0.0
        state = [leaf[None] for leaf in net.initial_state]
        out, _ = self.run(zeros, state)
        self.chooses_actions = Columns.ACTIONS in out
        """Whether the module gives actions itself, as DQN's does."""
        if not self.chooses_actions and Columns.ACTION_DIST_INPUTS not in out:
            raise UnsupportedModuleError(
                f"{type(net.module).__name__}: expected a module whose forward pass gives {Columns.ACTIONS!r} or "
                f"{Columns.ACTION_DIST_INPUTS!r}, received {sorted(out)}"
            )
        # RLlib's stateful DQN module mixes its rows up when it explores (it compares actions [n] with actions [n, 1]).
        self._one_by_one = bool(net.initial_state) and self.chooses_actions and net.explore and not net.leaves_choice
        if net.written_out is not None and backend != "torch" and len(zeros) == 1:
            self._numpy_rows = self._rows_for_numpy(zeros[0], state, measure=backend == "auto")

    def of(self, net: PolicyNet) -> ForwardPass:
        """Return the same for another net of the same kind."""
        other = copy.copy(self)
        other.net = net
        return other

    def run(self, observations: list[Array], state: list[Array], *, explore: bool | None = None) -> tuple[dict[str, Array], list[Array]]:
        """Run the pass.

        Args:
            observations: One array per leaf, [n, ...].
            state: The recurrent state before the step, leaf by leaf, [n, ...].
            explore: Whether it is the exploration pass or the inference pass; None: what the net was made for.

        Returns:
            What the module gives, [n, ...] by RLlib's column name, and the recurrent state after the step.
        """
        rows = len(observations[0])
        if rows <= self._numpy_rows and (written_out := self.net.written_out) is not None:
            inputs, after = written_out(observations[0], state)
            return {Columns.ACTION_DIST_INPUTS: inputs}, after
        if self._one_by_one and explore is not False and rows > 1:
            singles = [
                self._through_torch([leaf[row : row + 1] for leaf in observations], [leaf[row : row + 1] for leaf in state], explore)
                for row in range(rows)
            ]
            joined: tuple[dict[str, Array], list[Array]] = tree.map_structure(lambda *parts: np.concatenate(parts), *singles)
            return joined
        return self._through_torch(observations, state, explore)

    def _through_torch(
        self, observations: list[Array], state: list[Array], explore: bool | None = None
    ) -> tuple[dict[str, Array], list[Array]]:
        tensors: list[Any] = [_tensor(leaf) for leaf in observations]
        columns: dict[str, Any] = {}
        if state:
            tensors = [tensor.unsqueeze(1) for tensor in tensors]  # a step is a sequence of one
            columns[Columns.STATE_IN] = tree.unflatten_as(self.net.state_structure, [_tensor(leaf) for leaf in state])
        columns[Columns.OBS] = unflatten_batch(self._space, tensors)
        out = self.net.forward(columns, explore=explore)
        after = [leaf.numpy() for leaf in tree.flatten(out[Columns.STATE_OUT])] if state else []
        given: dict[str, Array] = {}
        for name, column in out.items():
            if name == Columns.STATE_OUT:
                continue
            if not isinstance(column, torch.Tensor):
                kind = type(self.net.module).__name__
                raise UnsupportedModuleError(f"{kind}: expected a tensor in each column, received {type(column).__name__} in {name!r}")
            given[name] = (column.squeeze(1) if state and column.ndim > 1 else column).numpy()
        return given, after

    def _rows_for_numpy(self, zeros: Array, state: list[Array], *, measure: bool) -> float:
        """Return the largest batch that numpy runs: any, or as far as it is the faster one here and now."""
        random = np.random.default_rng(0)
        limit = 0.0
        for rows in _MEASURED_ROWS:
            observations = random.standard_normal((rows, *zeros.shape[1:])).astype(zeros.dtype)
            before = [random.standard_normal((rows, *leaf.shape[1:])).astype(leaf.dtype) for leaf in state]
            written_out = self.net.written_out
            assert written_out is not None
            theirs, ours = self._through_torch([observations], before), written_out(observations, before)
            pairs = zip([theirs[0][Columns.ACTION_DIST_INPUTS], *theirs[1]], [ours[0], *ours[1]], strict=True)
            if theirs[0].keys() != {Columns.ACTION_DIST_INPUTS} or not all(
                left.shape == right.shape and np.allclose(left, right, _TOLERANCE, _TOLERANCE) for left, right in pairs
            ):
                logger.warning("%s: numpy gives something else than torch, so torch it is", type(self.net.module).__name__)
                return 0.0
            if measure:
                torch_s = _fastest_s(lambda: self._through_torch([observations], before))  # noqa: B023 - called at once
                if _fastest_s(lambda: written_out(observations, before)) > torch_s:  # noqa: B023
                    return limit
            limit = rows
        return float("inf")


def _fastest_s(function: Callable[[], Any]) -> float:
    """Time a function, as it is when nothing else gets in between."""
    return min(timeit.repeat(function, number=1, repeat=_MEASURED_TIMES))


def _tensor(array: Array) -> torch.Tensor:
    """Make a tensor of an array as RLlib's NumpyToTensor does: floats in single precision, everything else as it is."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.float() if tensor.is_floating_point() else tensor
