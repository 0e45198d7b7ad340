"""Random numbers for many rows at once, each row from a generator of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import FloatArray


class Draws:
    """The random numbers of n rows: row i comes from generator i alone, so a row is the same whichever rows are drawn with it."""

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        """Draw row i from `generators[i]`."""
        self.generators = tuple(generators)
        """One for each row."""

    def __len__(self) -> int:
        return len(self.generators)

    def normal(self, count: int) -> FloatArray:
        """Return standard normal numbers, float64 (n, count): the innovations, which are what `correlated` correlates."""
        numbers = np.empty((len(self), count))
        for generator, row in zip(self.generators, numbers, strict=True):
            generator.standard_normal(out=row)
        return numbers

    def uniform(self, count: int) -> FloatArray:
        """Return uniform numbers from [0, 1), float64 (n, count)."""
        numbers = np.empty((len(self), count))
        for generator, row in zip(self.generators, numbers, strict=True):
            generator.random(out=row)
        return numbers

    def exponential(self, count: int) -> FloatArray:
        """Return exponential numbers of mean 1, float64 (n, count)."""
        numbers = np.empty((len(self), count))
        for generator, row in zip(self.generators, numbers, strict=True):
            generator.standard_exponential(out=row)
        return numbers

    def each(self, draw: Callable[..., npt.ArrayLike], *parameters: FloatArray) -> FloatArray:
        """Return `draw(generator, *parameters of the row)` of every row, stacked, for laws whose parameters differ from row to row."""
        columns = (column.tolist() for column in parameters)
        return np.array([draw(generator, *values) for generator, *values in zip(self.generators, *columns, strict=True)], dtype=np.float64)

    def take(self, rows: Iterable[int]) -> Draws:
        """Return the draws of some rows."""
        return Draws([self.generators[row] for row in rows])


def by_row(function: Callable[[float], float], values: FloatArray) -> FloatArray:
    """Return a function of `math` of each value, float64 (n,): its bits don't depend on the processor's vector unit, as numpy's do."""
    return np.array([function(value) for value in values.tolist()])
