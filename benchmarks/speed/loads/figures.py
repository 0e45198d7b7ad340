"""What every load needs: observations to send, and the summary of the latencies it took."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from policyserver.client import PolicyClient

Observations = npt.NDArray[np.float32]
Latencies = npt.NDArray[np.int64]

PERCENTILES = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0)


def warm_up_s(seconds: float) -> float:
    """Return how long a load runs before its window: 2 s, and half a window that is shorter than 4 s."""
    return min(2.0, seconds / 2)


def observations(client: PolicyClient, rows: int, seed: int, scale: float = 1.0) -> Observations:
    """Return random observations of the space that the server tells, float32[rows, *shape], inside its bounds."""
    space = client.server_info().observation_space
    assert isinstance(space, gymnasium.spaces.Box), f"expected a server with a Box of observations, it has {space}"
    drawn = np.random.default_rng(seed).normal(scale=scale, size=(rows, *space.shape))
    return np.clip(drawn, space.low, space.high).astype(np.float32)


def summary(latencies_ns: Latencies, steps_per_s: float) -> dict[str, Any]:
    """Return the figures that every load gives."""
    if not len(latencies_ns):
        raise RuntimeError("calls: expected at least one in the measured window, received none: take a longer window")
    p50, p99, longest = np.percentile(latencies_ns, [50, 99, 100]) / 1e6
    by_percentile = np.percentile(latencies_ns, PERCENTILES) / 1e6
    return {
        "steps_per_s": steps_per_s,
        "p50_ms": p50,
        "p99_ms": p99,
        "max_ms": longest,
        "calls": len(latencies_ns),
        "percentiles_ms": [[at, value] for at, value in zip(PERCENTILES, by_percentile.tolist(), strict=True)],
    }
