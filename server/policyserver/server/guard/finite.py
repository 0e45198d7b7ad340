"""Looks for numbers that are not finite, in many tensors at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import tree

Named = Mapping[str, torch.Tensor]


def columns_of(batch: Any) -> dict[str, torch.Tensor]:
    """Return the arrays of an RLlib batch by the path of module and column, what is no array left out."""
    columns: dict[str, torch.Tensor] = {}
    for module_id, columns_of_module in batch.policy_batches.items():
        for name, value in columns_of_module.items():
            for path, leaf in tree.flatten_with_path(value):
                if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiub":
                    leaf = torch.as_tensor(leaf)
                if isinstance(leaf, torch.Tensor):
                    columns["/".join(map(str, (module_id, name, *path)))] = leaf
    return columns


def optimizer_columns(optimizers: Mapping[str, torch.optim.Optimizer]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of the optimizers' states by the optimizer, the parameter's place and the name of the value."""
    for name, optimizer in optimizers.items():
        for place, values in enumerate(optimizer.state.values()):
            for key, value in values.items():
                if isinstance(value, torch.Tensor):
                    yield f"{name}/{place}/{key}", value


def first_not_finite(columns: Iterable[tuple[str, torch.Tensor]], excluding: str = "") -> str:
    """Name the first array with a NaN or an infinity, with how many and where; "" if all numbers are finite.

    Args:
        columns: The arrays; only floating ones are looked at.
        excluding: End of the names of arrays that may have -inf, by which a policy excludes actions.
    """
    floating = [(name, column) for name, column in columns if column.is_floating_point() and column.numel()]
    plain = [column for name, column in floating if not (excluding and name.endswith(excluding))]
    if len(plain) == len(floating) and (not plain or bool(torch.isfinite(torch.nn.utils.get_total_norm(plain)))):
        return ""  # one look at them all; a norm may overflow, too
    for name, column in floating:
        bad = ~torch.isfinite(column)
        if excluding and name.endswith(excluding):
            bad &= ~torch.isneginf(column)
        if count := int(bad.sum()):
            index = tuple(int(place[0]) for place in torch.nonzero(bad, as_tuple=True))
            return f"{name}: {count:,} of {column.numel():,} numbers are not finite, the first is {float(column[index]):g} at {list(index)}"
    return ""
