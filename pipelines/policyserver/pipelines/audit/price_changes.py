"""What the prices of a pipeline are changed to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.truth.other_bars import fair_bars, other_future

_COLUMNS = ("open", "high", "low", "close", "volume")


class OtherFuture:
    """Prices that are others after a cut; see `PriceChange`."""

    def __init__(self, seed: int, through: Literal["bars", "draws"], kept: Mapping[int, int], last_ns: int) -> None:
        """Cut episodes and files.

        Args:
            seed: Of the other prices.
            through: Whether a simulated episode gets other bars, or its process other random numbers.
            kept: By number of a simulated episode, how many of its bars stay; no bar of the others does.
            last_ns: End of the last bar of a file that stays.
        """
        self._seed = seed
        self._through = through
        self._kept = kept
        self._last_ns = last_ns

    def generators(self, number: int, generators: Sequence[np.random.Generator], n_bars: int) -> list[np.random.Generator]:
        """See `PriceChange`."""
        if self._through == "bars":
            return list(generators)
        kept = self._kept.get(number, 0)
        others = (_rng(self._seed, f"draws/{number}/{place}") for place in range(len(generators)))
        return [_CutGenerator(own, other, kept, n_bars) for own, other in zip(generators, others, strict=True)]

    def drawn(self, number: int, bars: FloatArray) -> FloatArray:
        """See `PriceChange`."""
        if self._through == "draws":
            return bars
        rng, kept = _rng(self._seed, f"bars/{number}"), self._kept.get(number, 0)
        return np.stack([other_future(bars[:, symbol], kept, rng) for symbol in range(bars.shape[1])], axis=1)

    def rows(self, symbol: str, ends_ns: IntArray, columns: dict[str, FloatArray]) -> None:
        """See `PriceChange`. What a file says beside prices and volumes, such as dividends, is another, too."""
        rng, kept = _rng(self._seed, f"{symbol}/{ends_ns[0]}"), int(np.searchsorted(ends_ns, self._last_ns, side="right"))
        closes, n = columns["close"], len(ends_ns) - kept
        _put(columns, other_future(_taken(columns), kept, rng))
        to_close = (columns["close"] / closes)[kept:]
        for name in columns.keys() - set(_COLUMNS):
            values = columns[name]
            if name == "dividend" and n:
                values[kept:] *= to_close * rng.uniform(0.2, 0.8)
                values[kept + int(rng.integers(n))] += 0.002 * columns["close"][kept:].min()
            elif name == "adjusted_close":
                values[kept:] *= to_close * np.exp(np.cumsum(rng.uniform(0.0, 2e-5, n)))
            elif name != "split":
                values[kept:] *= rng.uniform(0.5, 1.5, n)


class FairMarket:
    """Prices that are a martingale; see `PriceChange`."""

    def __init__(self, seed: int) -> None:
        """Draw them by `seed`."""
        self._seed = seed
        self._ends: dict[str, list[tuple[int, float]]] = {}

    def generators(self, number: int, generators: Sequence[np.random.Generator], n_bars: int) -> list[np.random.Generator]:
        """See `PriceChange`."""
        return list(generators)

    def drawn(self, number: int, bars: FloatArray) -> FloatArray:
        """See `PriceChange`."""
        rng = _rng(self._seed, f"fair/{number}")
        return np.stack([fair_bars(bars[:, symbol], rng) for symbol in range(bars.shape[1])], axis=1)

    def rows(self, symbol: str, ends_ns: IntArray, columns: dict[str, FloatArray]) -> None:
        """See `PriceChange`. A file goes on where the one before it ends; there are no splits and no dividends."""
        before = [end for end in self._ends.get(symbol, []) if end[0] < ends_ns[0]]
        start = max(before)[1] if before else None
        _put(columns, fair_bars(_taken(columns), _rng(self._seed, f"fair/{symbol}/{ends_ns[0]}"), start))
        self._ends.setdefault(symbol, []).append((int(ends_ns[-1]), float(columns["close"][-1])))
        for name in columns.keys() & {"dividend", "split"}:
            columns[name][:] = 0.0
        if "adjusted_close" in columns:
            columns["adjusted_close"][:] = columns["close"]


class _CutGenerator(np.random.Generator):
    """Random numbers of one generator up to a bar, and of another after it, in every array that has equally many for each bar.

    Arrays that `Draws` fills go with time; whatever else is drawn stays as it is.
    """

    def __init__(self, own: np.random.Generator, other: np.random.Generator, kept: int, n_bars: int) -> None:
        super().__init__(own.bit_generator)
        self._other = other
        self._kept = kept
        self._n_bars = n_bars

    def standard_normal(self, *arguments: Any, out: Any = None, **options: Any) -> Any:
        """See `Generator`."""
        return self._cut("standard_normal", arguments, out, options)

    def standard_exponential(self, *arguments: Any, out: Any = None, **options: Any) -> Any:
        """See `Generator`."""
        return self._cut("standard_exponential", arguments, out, options)

    def random(self, *arguments: Any, out: Any = None, **options: Any) -> Any:
        """See `Generator`."""
        return self._cut("random", arguments, out, options)

    def _cut(self, law: str, arguments: tuple[Any, ...], out: Any, options: dict[str, Any]) -> Any:
        if out is None:
            return getattr(np.random.Generator, law)(self, *arguments, **options)
        getattr(np.random.Generator, law)(self, *arguments, out=out, **options)
        if len(out) % self._n_bars == 0:
            first = len(out) // self._n_bars * self._kept
            out[first:] = getattr(self._other, law)(len(out) - first)
        return out


def _rng(seed: int, purpose: str) -> np.random.Generator:
    key = int.from_bytes(hashlib.sha256(f"audit/{purpose}".encode()).digest()[:8])
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(key,)))


def _taken(columns: dict[str, FloatArray]) -> FloatArray:
    return np.stack([columns[name] for name in _COLUMNS], axis=1)


def _put(columns: dict[str, FloatArray], bars: FloatArray) -> None:
    for place, name in enumerate(_COLUMNS):
        columns[name] = np.ascontiguousarray(bars[:, place])
