"""What a policy that shadows would have done, on its way to the record."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class ShadowActions(NamedTuple):
    """Actions of one pass, n of them."""

    draw_keys: npt.NDArray[np.uint64]
    """Of their episodes: a hash of the id."""
    episodes: list[tuple[str, str]]
    """Client and id of their episodes, as the record of ended episodes has them."""
    steps: npt.NDArray[np.int64]
    """Number of each in its episode."""
    sent: npt.NDArray[Any]
    """What was sent, as clients execute it, [n, ...]."""
    shadow: npt.NDArray[Any]
    """What the shadow would have sent, [n, ...]."""
    weights_seq_no: int
    """The shadow's version."""
