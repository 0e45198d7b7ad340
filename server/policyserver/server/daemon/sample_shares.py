"""The effective sample size of minibatches: of how many steps the gradient is made, when other policies acted than the one that learns."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

import torch
from ray.rllib.core.columns import Columns

if TYPE_CHECKING:
    from ray.rllib.core.learner.learner_group import LearnerGroup

logger = logging.getLogger(__name__)

_SHARE = 0.1180339887
"""Share of the minibatches that are measured, which costs little. No fraction, so that each place within an update has its turn."""
_NEEDED = (Columns.ACTIONS, Columns.ACTION_LOGP)
"""What a batch has where the probability of its actions is known."""


class SampleShares:
    """Measures minibatches of the learner in this process; what learners in other processes do isn't known."""

    def __init__(self, group: LearnerGroup) -> None:
        """Hook into the learner."""
        self._due = 1.0
        self._shares: list[torch.Tensor] = []
        learner = group._learner
        if learner is not None:
            learner.compute_loss_for_module = self._measured(learner, learner.compute_loss_for_module)

    def take(self) -> float | None:
        """Return the mean since the last call; None if nothing was measured."""
        shares, self._shares = self._shares, []
        return float(torch.stack(shares).mean()) if shares else None

    def _measured(self, learner: Any, compute_loss: Any) -> Any:
        @functools.wraps(compute_loss)
        def hooked(*, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]) -> Any:
            if self._due >= 1.0:
                self._due -= 1.0
                if Columns.ACTION_DIST_INPUTS in fwd_out and all(name in batch for name in _NEEDED):
                    self._measure(learner.module[module_id].unwrapped(), batch, fwd_out)
            self._due += _SHARE
            return compute_loss(module_id=module_id, config=config, batch=batch, fwd_out=fwd_out)

        return hooked

    def _measure(self, module: Any, batch: dict[str, Any], fwd_out: dict[str, Any]) -> None:
        try:
            with torch.no_grad():
                distribution = module.get_train_action_dist_cls().from_logits(fwd_out[Columns.ACTION_DIST_INPUTS])
                log_ratios = distribution.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP]
                mask = batch.get(Columns.LOSS_MASK)
                self._shares.append(effective_share(log_ratios if mask is None else log_ratios[mask]))
        except Exception as error:  # a net of the user's own; what is only shown must not stop learning
            logger.debug("the effective sample size is unknown: %r", error)


def effective_share(log_ratios: torch.Tensor) -> torch.Tensor:
    """Return (sum w)^2 / (n sum w^2) of the weights w = exp(log_ratios) of n steps."""
    weights = torch.exp(log_ratios - log_ratios.max())  # which changes nothing, and keeps the squares finite
    return weights.sum() ** 2 / (weights.numel() * (weights**2).sum())
