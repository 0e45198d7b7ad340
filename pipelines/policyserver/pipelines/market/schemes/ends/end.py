"""What an end is: a condition at a bar's close."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.scheme import Scheme, View


class End(Scheme):
    """A reason for an episode to end."""

    __slots__ = ()

    terminates: ClassVar[bool] = True
    """Whether the episode is terminated: what follows is worth nothing. False: truncated, what follows is only not seen."""

    def reached(self, state: Any, view: View, rows: Rows) -> npt.NDArray[np.bool_]:
        """Return whether each row has reached its end at its last bar, bool (m,)."""
        raise NotImplementedError


__all__ = ["End", "View"]
