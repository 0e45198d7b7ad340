"""The last bars themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge
from gymnasium.spaces import Box

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.history import FIELDS
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.observers.observer import LIMIT, Observer, View


@dataclass(frozen=True, slots=True)
class Window(Observer):
    """The last `bars` bars of each symbol, oldest first: prices as logs over the last close, volumes as logs over the window's mean."""

    bars: Annotated[int, Ge(1)] = 32
    """Bars in the window."""
    fields: tuple[Literal["open", "high", "low", "close", "volume"], ...] = FIELDS  # type: ignore[assignment]
    """What is seen of each bar."""
    scale: float = 100.0
    """What a log is multiplied by: 100 makes 1 of about one per cent."""

    def history_bars(self) -> int:
        """See `Scheme`."""
        return self.bars

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """See `Observer`."""
        return tuple(f"{symbol}.{field}[{place}]" for place in range(1 - self.bars, 1) for symbol in symbols for field in self.fields)

    def space(self, symbols: tuple[str, ...]) -> Box:
        """Return Box(bars, K, fields)."""
        return Box(-LIMIT, LIMIT, (self.bars, len(symbols), len(self.fields)), np.float32)

    def observe(self, state: Any, view: View, rows: Rows) -> FloatArray:
        """See `Observer`."""
        window = view.history.window(rows, self.bars)
        volumes = window[..., 4]
        usual = np.maximum(volumes.mean(axis=1, keepdims=True), np.finfo(float).tiny)
        logs = np.empty_like(window)
        logs[..., :4] = self.scale * np.log(window[..., :4] / window[:, -1:, :, 3:4])
        logs[..., 4] = np.log(np.maximum(volumes / usual, np.exp(-LIMIT)))
        return logs[..., [FIELDS.index(field) for field in self.fields]]
