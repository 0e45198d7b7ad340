"""Functions of masks, bool[n], which a pass calls some thirty times.

numpy's own `all`, `any` and `flatnonzero` go through Python and a reduction, which for a few rows costs three to five times the counting.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


def count(mask: npt.NDArray[Any]) -> int:
    """Return the number of rows that a mask takes, or of elements that are not zero."""
    return int(np.count_nonzero(mask))


def all_true(mask: Mask) -> bool:
    """Tell whether a mask takes all rows."""
    return count(mask) == mask.size


def any_true(mask: Mask) -> bool:
    """Tell whether a mask takes any row."""
    return count(mask) > 0


def ones(rows: int) -> Mask:
    """Return the mask that takes all of so many rows."""
    return ~np.zeros(rows, np.bool_)


def flatnonzero(mask: Mask) -> npt.NDArray[np.int64]:
    """Return the rows that a mask takes, ascending."""
    return mask.nonzero()[0]
