"""Random numbers that belong to one episode, whatever was drawn elsewhere; and what an episode's symbols are called."""

from __future__ import annotations

import hashlib

import numpy as np


def episode_rng(seed: int, symbol: str, number: int, purpose: str = "prices") -> np.random.Generator:
    """Return the generator of one symbol of one episode, for one purpose."""
    key = int.from_bytes(hashlib.sha256(f"{purpose}/{symbol}".encode()).digest()[:8])
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(key, number)))


def slots_of(symbols: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Return what the symbols of an episode are called in observations: their own names where every episode has the same."""
    if count == len(symbols):
        return symbols
    return ("price",) if count == 1 else tuple(f"price_{place}" for place in range(1, count + 1))
