"""Settings of files of bars."""

from __future__ import annotations

from dataclasses import dataclass, field

from policyserver.common.settings import Config
from policyserver.pipelines.market.files.dialect import PRICES, Dialect
from policyserver.pipelines.market.files.faults import FaultPolicies
from policyserver.pipelines.market.files.vendors import DIALECTS


@dataclass(frozen=True, slots=True)
class FilesConfig(Config):
    """How files of bars are written, and what is done about their faults."""

    dialect: str = "auto"
    """Name of a shipped dialect; `auto` takes the one that a file's first lines show."""
    mapping: Dialect | None = None
    """An own dialect, in place of a shipped one."""
    calendar: str = ""
    """When the symbols are traded: "24/7", "24/5", "weekdays", or an exchange's code such as "XNYS"; "" leaves it open."""
    columns: tuple[str, ...] = ()
    """Further columns of numbers, by their names in the files, for observers such as `exogenous`. A row without a number has that of the
    row before."""
    faults: FaultPolicies = field(default_factory=FaultPolicies)
    """What is done about each kind of fault."""

    def _check(self) -> None:
        if self.dialect != "auto" and self.dialect not in DIALECTS:
            raise ValueError(f"dialect: expected auto, {', '.join(DIALECTS)}, or a table `mapping`, received {self.dialect!r}")
        if known := {name.strip().lower() for name in self.columns} & {*PRICES, "volume"}:
            raise ValueError(f"columns: expected columns beside prices and volume, received {', '.join(sorted(known))}")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError(f"columns: expected each once, received {self.columns}")
        if self.mapping is not None and self.dialect != "auto":
            raise ValueError(f"dialect: expected none beside mapping, received {self.dialect!r}")

    @property
    def chosen(self) -> Dialect | str:
        """What `read_file` takes as its dialect."""
        return self.mapping or self.dialect
