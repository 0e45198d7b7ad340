"""Random numbers that belong to one episode, whatever was drawn elsewhere."""

from __future__ import annotations

import hashlib

import numpy as np


def episode_rng(seed: int, symbol: str, number: int, purpose: str = "prices") -> np.random.Generator:
    """Return the generator of one symbol of one episode, for one purpose."""
    key = int.from_bytes(hashlib.sha256(f"{purpose}/{symbol}".encode()).digest()[:8])
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(key, number)))
