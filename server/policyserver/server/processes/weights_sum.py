"""A sum of a net's weights, by which they are known again wherever they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def sha256_of_weights(weights: Mapping[str, Any]) -> str:
    """Return the SHA-256 of named arrays or tensors, in hex: of names, dtypes, shapes and little-endian bytes, ordered by name.

    A net has the same sum in a checkpoint, in the learner and where it serves.
    """
    sum_ = hashlib.sha256()
    for name in sorted(weights):
        array = np.asarray(weights[name])
        sum_.update(f"{name} {array.dtype.name} {array.shape} ".encode())
        sum_.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return sum_.hexdigest()
