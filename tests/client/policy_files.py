"""Files of policies, made without RLlib: a description and its arrays, of which tests can change anything."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from google.protobuf import json_format

from policyserver.common.spaces import to_proto

OBSERVATION = gym.spaces.Box(-100.0, 100.0, (10,), np.float32)
ACTION: gym.spaces.Discrete[np.int64] = gym.spaces.Discrete(3)


def mlp(observation_space: gym.Space[Any] = OBSERVATION, action_space: gym.Space[Any] = ACTION) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the description, as JSON has it, and the arrays of an MLP of 64 and 64 units for ten numbers and three actions."""
    random = np.random.default_rng(0)
    sizes = [10, 64, 64, 3]
    arrays: dict[str, Any] = {}
    layers = []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        arrays[f"{number}.weight"] = random.normal(0.0, 0.2, (inputs, outputs)).astype(np.float32)
        arrays[f"{number}.bias"] = random.normal(0.0, 0.2, outputs).astype(np.float32)
        layers.append({"dense": {"weight": f"{number}.weight", "bias": f"{number}.bias"}})
    for layer in layers[:-1]:
        layer["dense"]["activation"] = "ACTIVATION_TANH"
    description = {
        "format_version": 1,
        "origin": {"run": "a", "algorithm": "PPO", "checkpoint": "3", "weights_seq_no": "30"},
        "observation_space": json_format.MessageToDict(to_proto(observation_space)),
        "action_space": json_format.MessageToDict(to_proto(action_space)),
        "net": {"encoder": layers[:-1], "head": layers[-1:]},
        "distribution": "DISTRIBUTION_CATEGORICAL",
    }
    return description, arrays


def write(path: Path, text: str | bytes, arrays: dict[str, Any]) -> Path:
    """Write a file; `text` is the description."""
    content = text.encode() if isinstance(text, str) else text
    np.savez(path, description=np.frombuffer(content, np.uint8), **arrays)
    return path
