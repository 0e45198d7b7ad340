"""The net of PPO that can take only actions of the observation's label. Needs RLlib, which `labels` does not."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.columns import Columns

from benchmarks.cluster.labels import ACTIONS, CHOICES, LABELS

_EXCLUDED = -1e4  # whose chance is 0 in float32, while sums of p log p stay finite


class LabelledNet(DefaultPPOTorchRLModule):
    """RLlib's default net, with all actions excluded but those of the label."""

    def _forward(self, batch: dict[str, Any], **options: Any) -> dict[str, Any]:
        return _of_the_label(super()._forward(batch, **options), batch)

    def _forward_train(self, batch: dict[str, Any], **options: Any) -> dict[str, Any]:
        return _of_the_label(super()._forward_train(batch, **options), batch)


def _of_the_label(out: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
    logits = out[Columns.ACTION_DIST_INPUTS]
    labels = torch.round(batch[Columns.OBS][..., :1] * LABELS)
    is_other = torch.arange(ACTIONS, device=logits.device) // CHOICES != labels
    out[Columns.ACTION_DIST_INPUTS] = logits.masked_fill(is_other, _EXCLUDED)
    return out
