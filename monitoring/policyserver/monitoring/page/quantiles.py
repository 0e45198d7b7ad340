"""Quantiles over the rows of a matrix in which values may be missing."""

from __future__ import annotations

import numpy as np

SHARES = {"p05": 0.05, "p50": 0.5, "p95": 0.95}
"""The quantiles that the page shows, by the ending of their columns' names."""


def quantile_columns(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Return `name_p05`, `name_p50` and `name_p95` of each column of a matrix (rows, n), NaN where a column has no value."""
    ordered = np.sort(values, axis=0)  # NaN comes last
    last = np.maximum((~np.isnan(values)).sum(axis=0) - 1, 0)
    columns = np.arange(values.shape[1])
    found = {}
    for ending, share in SHARES.items():
        place = share * last
        low = place.astype(np.int64)
        below, above = ordered[low, columns], ordered[np.minimum(low + 1, last), columns]
        found[f"{name}_{ending}"] = below + (place - low) * (above - below)
    return found
