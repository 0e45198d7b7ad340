"""What can be wrong in a file of bars, what is done about each kind, and the report of what was found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args, get_type_hints

import numpy as np
from annotated_types import Gt

from policyserver.common.settings import Config
from policyserver.pipelines.market.intervals import interval_text

DropOrRefuse = Literal["refuse", "drop"]
KeepOrRefuse = Literal["refuse", "keep"]
Policy = Literal["refuse", "drop", "keep"]

SHOWN_EXAMPLES = 5
"""Examples of each kind of fault in a report."""


class FileFaultError(ValueError):
    """A file that is not read: it is not what its dialect says, or has a fault that is to be refused. The message names file and line."""


@dataclass(frozen=True, slots=True)
class FaultPolicies(Config):
    """What is done about each kind of fault: `refuse` the file, `drop` the row, or `keep` it."""

    malformed: DropOrRefuse = "refuse"
    """Another number of cells, a cell that is no number or no time, a quotation mark that is not closed."""
    missing: DropOrRefuse = "refuse"
    """A price that is not there: an empty cell, `null`, NaN."""
    price: Policy = "refuse"
    """A price that is not from 1e-15 to 1e15: negative, zero, infinite."""
    inconsistent: Policy = "refuse"
    """Not low <= open, close <= high."""
    volume: DropOrRefuse = "refuse"
    """A volume that is negative, infinite or missing."""
    zero_volume: Policy = "keep"
    """Volume 0 in a file that has volumes."""
    time: DropOrRefuse = "refuse"
    """A local time that the zone's clocks skip, or have twice where the rows don't say which is meant."""
    disorder: Policy = "refuse"
    """A bar before the one above it; `keep` sorts it into its place."""
    duplicate: DropOrRefuse = "refuse"
    """A bar that is there twice, with equal values."""
    conflict: DropOrRefuse = "refuse"
    """Another bar of the same time, with other values; `drop` keeps the first."""
    gap: KeepOrRefuse = "keep"
    """Bars that are not there: of the calendar if one is given, else between two bars further apart than the interval."""
    closed: Policy = "keep"
    """A bar while the calendar's market is closed."""
    spike: Policy = "keep"
    """A close that jumps and is back with the next bar."""
    jump: KeepOrRefuse = "keep"
    """A close that jumps and stays."""
    split: KeepOrRefuse = "refuse"
    """A jump by a ratio that splits have, such as 4:1, which the file's own split column does not announce."""
    jump_sigmas: Annotated[float, Gt(0)] = 30.0
    """A jump is a log-return beyond so many standard deviations, estimated by the median, ..."""
    jump_floor: Annotated[float, Gt(0)] = 0.1
    """... and beyond this."""


@dataclass(frozen=True, slots=True)
class Example:
    """One fault."""

    line: int
    """Physical line of the file, from 1; the row in a Parquet file."""
    text: str
    """What was expected and what was received."""


@dataclass(frozen=True, slots=True)
class Finding:
    """All faults of one kind."""

    kind: str
    """Field of `FaultPolicies`."""
    policy: str
    """What is done about them."""
    count: int
    """How many there are."""
    examples: tuple[Example, ...]
    """The first of them."""

    @property
    def is_fault(self) -> bool:
        """Whether it is one that the policy does not keep."""
        return self.policy != "keep"


class Findings:
    """Gathers faults while a file is read."""

    def __init__(self, policies: FaultPolicies) -> None:
        """Take what is to be done about each kind."""
        self.policies = policies
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[Example]] = {}

    def add(self, kind: str, count: int, examples: Iterable[Example]) -> None:
        """Note `count` faults of a kind; of the examples those with the first lines are kept."""
        if count:
            self._counts[kind] = self._counts.get(kind, 0) + count
            merged = sorted([*self._examples.get(kind, ()), *examples], key=lambda example: example.line)
            self._examples[kind] = merged[:SHOWN_EXAMPLES]

    def result(self) -> tuple[Finding, ...]:
        """Return what was found, the kinds in the order of their declaration."""
        return tuple(
            Finding(kind, getattr(self.policies, kind), self._counts[kind], tuple(self._examples[kind]))
            for kind in FaultPolicies.__slots__
            if kind in self._counts
        )


@dataclass(frozen=True, slots=True)
class FileReport:
    """What a file holds of one symbol, and what is wrong with it."""

    path: str
    """The file."""
    dialect: str
    """Name of the dialect, "own" for one of the configuration's."""
    symbol: str
    """The symbol."""
    n_rows: int
    """Rows of the symbol, faulty ones among them."""
    n_bars: int
    """Bars that are left."""
    first_ns: int = 0
    """Stamp of the first bar, in UTC."""
    last_ns: int = 0
    """Stamp of the last bar."""
    interval_ns: int = 0
    """Length of a bar; 0 where it is not known."""
    notes: tuple[str, ...] = ()
    """What was taken for granted."""
    findings: tuple[Finding, ...] = field(default=())
    """Faults and other peculiarities."""

    @property
    def is_clean(self) -> bool:
        """Whether there is no fault that the policies don't keep."""
        return not any(finding.is_fault for finding in self.findings)

    def refusal(self) -> str:
        """Return why the file is refused, in one line; "" where it is not."""
        refused = [finding for finding in self.findings if finding.policy == "refuse"]
        if not refused:
            return ""
        first = min(refused, key=lambda finding: finding.examples[0].line)
        others = sum(finding.count for finding in refused) - 1
        more = f" (and {others:,} more: policy-pipeline check-data lists them)" if others else ""
        return f"{self.path}, line {first.examples[0].line}{first.examples[0].text}{more}; {_remedy(first.kind)}"

    def text(self) -> str:
        """Return the report as lines."""
        lines = [f"{self.path}: {self.symbol}, dialect {self.dialect}, {self.n_bars:,} bars of {self.n_rows:,} rows"]
        if self.n_bars:
            length = interval_text(self.interval_ns) if self.interval_ns else "unknown length"
            lines.append(f"  span      {_date(self.first_ns)} to {_date(self.last_ns)}, bars of {length}")
        lines += [f"  note      {note}" for note in self.notes]
        for found in self.findings:
            lines.append(f"  {'FAULT' if found.is_fault else 'found':9} {found.kind}: {found.count:,} ({found.policy})")
            lines += [f"            line {example.line}{example.text}" for example in found.examples]
            if found.count > len(found.examples):
                lines.append(f"            ... and {found.count - len(found.examples):,} more")
        return "\n".join(lines)


def _remedy(kind: str) -> str:
    """Return what to set so that a file with such faults is read."""
    if kind == "disorder":
        return 'faults.disorder = "keep" sorts such rows into their place'
    if "drop" in get_args(get_type_hints(FaultPolicies)[kind]):
        return f'faults.{kind} = "drop" leaves such rows out'
    return f'faults.{kind} = "keep" takes them as they are'


def _date(time_ns: int) -> str:
    return f"{np.datetime_as_string(np.datetime64(time_ns, 'ns'), unit='s')}Z"
