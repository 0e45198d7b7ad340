"""Seeds a serving process."""

from __future__ import annotations

import random

import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

_EVALUATION_SEEDS = 1_000_000  # RLlib's, which evaluation instances have beside the others'


def seeded(config: AlgorithmConfig, worker_index: int) -> AlgorithmConfig:
    """Seed the process as RLlib does, and return a configuration by which RLlib leaves that.

    RLlib also asks for deterministic algorithms, for which PyTorch's builds without CUDA import its compiler: half of a start. Nothing that
    is served needs them.
    """
    if config.seed is None:
        return config
    seed = config.seed + worker_index + config.in_evaluation * _EVALUATION_SEEDS
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    unseeded = config.copy(copy_frozen=False)
    unseeded.seed = None
    return unseeded
