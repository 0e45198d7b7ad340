"""How far an update moves the policy: the KL divergence on observations of its batch."""

from __future__ import annotations

import math
from typing import Any

import torch
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchMultiDistribution, TorchSquashedGaussian

PROBE_STEPS = 256
"""Most observations that are asked about."""


class PolicyProbe:
    """Observations of a batch, and what a net makes of them before an update."""

    def __init__(self, module: Any, batch: dict[str, Any]) -> None:
        """Ask the net about the first observations of a batch; of a recurrent net about the first sequences."""
        self._module = module.unwrapped()
        recurrent = self._module.is_stateful()
        shape = tree.flatten(batch[Columns.OBS])[0].shape
        rows = max(1, PROBE_STEPS // shape[1]) if recurrent else PROBE_STEPS
        names = (Columns.OBS, Columns.STATE_IN) if recurrent else (Columns.OBS,)
        self._columns = {name: tree.map_structure(lambda leaf: leaf[:rows], batch[name]) for name in names}
        mask = batch.get(Columns.LOSS_MASK)
        self._mask = None if mask is None else mask[:rows].bool()
        self._before = self._inputs()

    def kl(self) -> float | None:
        """Return the mean divergence of the net as it is now from what it was, in nats; None if it has no distribution that tells."""
        before, after = self._before, self._inputs()
        if before is None or after is None:
            return None
        if bool((torch.isnan(after) | torch.isposinf(after)).any()):
            return math.inf
        distribution = self._module.get_inference_action_dist_cls()
        with torch.no_grad():
            was = distribution.from_logits(before)
            try:
                divergence = _kl(was, distribution.from_logits(after))
            except ValueError:  # what was a distribution is not one any more
                return math.inf
        if divergence is None:
            return None
        rows = divergence if self._mask is None else divergence[self._mask]
        if not rows.numel():
            return None
        mean = float(rows.mean())
        return math.inf if math.isnan(mean) else mean

    def _inputs(self) -> torch.Tensor | None:
        """Return the numbers that make the distributions; None for a net that gives none."""
        training = self._module.training
        self._module.eval()  # without dropout; the running statistics of normalizing layers stay
        try:
            with torch.no_grad():
                inputs: torch.Tensor | None = self._module._forward_inference(dict(self._columns)).get(Columns.ACTION_DIST_INPUTS)
                return None if inputs is None else inputs.clone()
        finally:
            self._module.train(training)


def _kl(before: Any, after: Any) -> torch.Tensor | None:
    """Return the divergence of each row; None where RLlib's distribution has none.

    RLlib has none for a squashed Gaussian. Squashing is one to one, so it is that of the Gaussians.
    """
    if isinstance(before, TorchMultiDistribution):
        children = zip(before._flat_child_distributions, after._flat_child_distributions, strict=True)
        parts = [part for pair in children if (part := _kl(*pair)) is not None]
        return torch.stack(parts).sum(0) if parts else None
    if isinstance(before, TorchSquashedGaussian):
        return torch.distributions.kl_divergence(before._dist, after._dist).sum(-1)
    try:
        divergence: torch.Tensor = before.kl(after)
    except Exception:  # a deterministic one, or a user's own
        return None
    return divergence
