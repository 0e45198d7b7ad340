"""Assets whose innovations are correlated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Interval

from policyserver.common.settings import SettingsError
from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.processes import PROCESSES
from policyserver.pipelines.market.processes.draws import Draws
from policyserver.pipelines.market.processes.path_bars import LogPaths
from policyserver.pipelines.market.processes.process import PathProcess
from policyserver.pipelines.market.registry import Choice

_Correlation = Annotated[float, Interval(ge=-1, le=1)]
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Correlated(PathProcess):
    """Several assets of one process whose normal innovations are correlated; each asset draws parameters of its own.

    The rows of an episode are its assets, in the order of the matrix. Exact where the process is. Returns have the correlation of the
    innovations as far as they are proportional to them: jumps and the widths of t innovations are each asset's own.
    """

    correlation: tuple[tuple[_Correlation, ...], ...]
    """Matrix of the assets' correlations, positive semi-definite, with ones on the diagonal."""
    process: Choice = "gbm"
    """Process of each asset, one that has paths of log-prices."""
    _part: PathProcess = field(init=False, repr=False, compare=False)
    _factor: FloatArray = field(init=False, repr=False, compare=False)

    def _check(self) -> None:
        part = PROCESSES.make(self.process, "process")
        if not isinstance(part, PathProcess) or part.rows_per_episode != 1:
            raise SettingsError("process", "", f"expected a process with paths of one asset's log-price, received {self.process!r}")
        object.__setattr__(self, "_part", part)
        object.__setattr__(self, "_factor", factor_of(self.correlation))

    @property
    def rows_per_episode(self) -> int:
        """The number of assets."""
        return len(self.correlation)

    def check(self, n_bars: int) -> None:
        """Refuse what the assets' process refuses."""
        try:
            self._part.check(n_bars)
        except ValueError as error:
            raise ValueError(f"process.{error}") from error

    def draw_parameters(self, rng: np.random.Generator) -> dict[str, float]:
        """Draw the parameters of one asset."""
        return self._part.draw_parameters(rng)

    def paths(self, draws: Draws, parameters: Mapping[str, FloatArray], n_steps: int, steps_per_bar: int) -> LogPaths:
        """Return the path of each row; the rows are whole episodes."""
        return self._part.paths(_CorrelatedDraws(draws, self._factor), parameters, n_steps, steps_per_bar)


class _CorrelatedDraws(Draws):
    """Random numbers of rows of which each group of K has normal numbers with a correlation."""

    def __init__(self, draws: Draws, factor: FloatArray) -> None:
        """Mix the normal numbers of `draws` by a lower triangular `factor`, float64 (K, K)."""
        super().__init__(draws.generators)
        if len(draws) % len(factor):
            raise ValueError(f"draws: expected rows of whole episodes of {len(factor)} assets, received {len(draws)}")
        self._factor = factor

    def normal(self, count: int) -> FloatArray:
        """Return standard normal numbers, float64 (n, count), correlated among the rows of an episode."""
        own = super().normal(count).reshape(-1, len(self._factor), count)
        mixed = np.zeros_like(own)
        for asset, weights in enumerate(self._factor.tolist()):  # in this order whatever the number of rows, unlike a matrix product
            for other in range(asset + 1):
                mixed[:, asset] += weights[other] * own[:, other]
        return mixed.reshape(-1, count)


def factor_of(correlation: Sequence[Sequence[float]]) -> FloatArray:
    """Return the lower triangular L with L L' = `correlation`, float64 (K, K), by Cholesky's rows; a singular matrix has one, too.

    Raises:
        ValueError: The matrix is no correlation matrix; the text names the value at fault and the range that it may have.
    """
    n = len(correlation)
    if n < 2:
        raise ValueError(f"correlation: expected rows of at least 2 assets, received {n}")
    factor = np.zeros((n, n))
    for i, row in enumerate(correlation):
        if len(row) != n:
            raise ValueError(f"correlation[{i}]: expected {n} values, one for each asset, received {len(row)}")
        if row[i] != 1.0:
            raise ValueError(f"correlation[{i}][{i}]: expected 1, received {row[i]:g}")
        for j in range(i):
            if row[j] != correlation[j][i]:
                raise ValueError(f"correlation[{i}][{j}]: expected {correlation[j][i]:g} as in [{j}][{i}], received {row[j]:g}")
            middle = float(factor[i, :j] @ factor[j, :j])
            reach = math.sqrt(max(0.0, 1.0 - float(factor[i, :j] @ factor[i, :j]))) * factor[j, j]
            if abs(row[j] - middle) > reach + _ROUNDING:
                raise ValueError(
                    f"correlation[{i}][{j}]: expected {max(-1.0, middle - reach):.4g} to {min(1.0, middle + reach):.4g} beside the values "
                    f"before it, so that the matrix is positive semi-definite, received {row[j]:g}"
                )
            factor[i, j] = (row[j] - middle) / factor[j, j] if factor[j, j] > _ROUNDING else 0.0
        factor[i, i] = math.sqrt(max(0.0, 1.0 - float(factor[i, :i] @ factor[i, :i])))
    return factor
