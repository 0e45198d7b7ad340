"""A mixture of processes, drawn for each episode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Gt

from policyserver.common.settings import Config, SettingsError
from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.market.processes import PROCESSES
from policyserver.pipelines.market.processes.draws import Draws
from policyserver.pipelines.market.processes.path_bars import RowBars
from policyserver.pipelines.market.processes.process import PriceProcess
from policyserver.pipelines.market.registry import Choice


@dataclass(frozen=True, slots=True)
class MixturePart(Config):
    """One of the processes of a mixture."""

    process: Choice
    """The process."""
    weight: Annotated[float, Gt(0)] = 1.0
    """How often it is drawn beside the others' weights."""


@dataclass(frozen=True, slots=True)
class Mixture(PriceProcess):
    """One of several processes, drawn anew for each episode.

    The parameters of an episode are `part`, the number of the process that was drawn, and that process's own, as in "heston.reversion";
    a process that occurs twice is "gbm[0].volatility" by the number of its part.
    """

    parts: tuple[MixturePart, ...]
    """The processes and their weights."""
    _processes: tuple[PriceProcess, ...] = field(init=False, repr=False, compare=False)
    _labels: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def _check(self) -> None:
        if not self.parts:
            raise ValueError("parts: expected at least one, received none")
        processes = tuple(PROCESSES.make(part.process, f"parts[{number}].process") for number, part in enumerate(self.parts))
        for number, process in enumerate(processes):
            if process.rows_per_episode != 1:
                raise SettingsError(f"parts[{number}].process", "", f"expected a process of one asset, received {process.rows_per_episode}")
        names = [part.process if isinstance(part.process, str) else str(part.process["name"]) for part in self.parts]
        labels = tuple(name if names.count(name) == 1 else f"{name}[{number}]" for number, name in enumerate(names))
        object.__setattr__(self, "_processes", processes)
        object.__setattr__(self, "_labels", labels)

    @property
    def has_sub_steps(self) -> bool:
        """Whether a part has."""
        return any(process.has_sub_steps for process in self._processes)

    @property
    def catalogs(self) -> tuple[CatalogConfig, ...]:
        """The files of all parts."""
        return tuple(catalog for process in self._processes for catalog in process.catalogs)

    def check(self, n_bars: int) -> None:
        """Refuse what a part refuses."""
        for number, process in enumerate(self._processes):
            try:
                process.check(n_bars)
            except ValueError as error:
                raise ValueError(f"parts[{number}].process.{error}") from error

    def draw_parameters(self, rng: np.random.Generator) -> dict[str, float]:
        """Draw a part, then its parameters."""
        shares = np.cumsum([part.weight for part in self.parts])
        part = int(np.searchsorted(shares[:-1], rng.random() * shares[-1], side="right"))
        own = self._processes[part].draw_parameters(rng)
        return {"part": float(part)} | {f"{self._labels[part]}.{name}": value for name, value in own.items()}

    def bars(self, draws: Draws, parameters: Mapping[str, FloatArray], n_bars: int, steps_per_bar: int) -> RowBars:
        """Return the bars of each row, those of one part together."""
        mixed = RowBars(*(np.empty((len(draws), n_bars)) for _ in RowBars.__slots__))
        for number, (process, label) in enumerate(zip(self._processes, self._labels, strict=True)):
            rows = np.flatnonzero(parameters["part"] == number)
            if len(rows):
                prefix = f"{label}."
                own = {name.removeprefix(prefix): values[rows] for name, values in parameters.items() if name.startswith(prefix)}
                bars = process.bars(draws.take(rows.tolist()), own, n_bars, steps_per_bar)
                for name in RowBars.__slots__:
                    getattr(mixed, name)[rows] = getattr(bars, name)
        return mixed
