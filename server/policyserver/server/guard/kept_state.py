"""A copy of what an update of RLlib's learner changes, to undo it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch

_COEFFICIENTS = ("curr_kl_coeffs_per_module", "curr_log_alpha")
"""Attributes of RLlib's learners that hold tensors by module beside the nets."""


class KeptState:
    """Weights, buffers, optimizers and coefficients of a learner as they were when this was made. Costs their memory once more."""

    def __init__(self, learner: Any) -> None:
        """Copy them."""
        self._optimizers = dict(learner._named_optimizers)
        self._tensors = [(tensor, tensor.detach().clone()) for tensor in _tensors(learner)]
        self._states = {
            name: {parameter: {key: _copied(value) for key, value in values.items()} for parameter, values in optimizer.state.items()}
            for name, optimizer in self._optimizers.items()
        }
        self._groups = {
            name: [_without_parameters(group) for group in optimizer.param_groups] for name, optimizer in self._optimizers.items()
        }

    @property
    def nbytes(self) -> int:
        """Return the memory of the copies, bytes."""
        states = (values.values() for by_parameter in self._states.values() for values in by_parameter.values())
        kept = chain((kept for _, kept in self._tensors), chain.from_iterable(states))
        return sum(each.nbytes for each in kept if isinstance(each, torch.Tensor))

    def restore(self) -> None:
        """Put everything back, in place."""
        with torch.no_grad():
            for tensor, kept in self._tensors:
                tensor.copy_(kept)
            for name, optimizer in self._optimizers.items():
                for parameter in [parameter for parameter in optimizer.state if parameter not in self._states[name]]:
                    del optimizer.state[parameter]
                for parameter, values in self._states[name].items():
                    optimizer.state[parameter] = {key: _copied(value) for key, value in values.items()}
                for group, kept_group in zip(optimizer.param_groups, self._groups[name], strict=True):
                    group.update(kept_group)

    def moves(self) -> Iterator[tuple[str, float, float]]:
        """Yield for each optimizer the root mean square of the change of its weights since, and of the weights that were kept."""
        before = {id(tensor): kept for tensor, kept in self._tensors}
        with torch.no_grad():
            for name, optimizer in self._optimizers.items():
                weights = [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.numel()]
                if not weights:
                    continue
                kept = [before[id(weight)] for weight in weights]
                total = sum(weight.numel() for weight in weights) ** 0.5
                norm = torch.nn.utils.get_total_norm
                change = norm([weight.detach() - old for weight, old in zip(weights, kept, strict=True)])
                yield name, float(change) / total, float(norm(kept)) / total


def _tensors(learner: Any) -> list[torch.Tensor]:
    """List what an update may change, each once."""
    modules = [learner.module[name] for name in learner.module.keys()]  # noqa: SIM118 - it is no dict
    of_nets = chain.from_iterable(chain(module.parameters(), module.buffers()) for module in modules if isinstance(module, torch.nn.Module))
    of_optimizers = (
        parameter for optimizer in learner._named_optimizers.values() for group in optimizer.param_groups for parameter in group["params"]
    )
    coefficients = chain.from_iterable(getattr(learner, name, {}).values() for name in _COEFFICIENTS)
    every = (tensor for tensor in chain(of_nets, of_optimizers, coefficients) if isinstance(tensor, torch.Tensor))
    return list({id(tensor): tensor for tensor in every}.values())


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _without_parameters(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}
