"""What a check found: the parts at fault, and how much was looked at."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

CheckName = Literal["changed future", "fair game", "warm-up", "split"]


@dataclass(frozen=True, slots=True)
class PartAtFault:
    """A part of a pipeline that failed a check, with one place where it shows."""

    part: str
    """What it is, such as "observed window: price.close[0]"."""
    problem: str
    """What is wrong with it, in words."""
    episode: str = ""
    """Where it shows: the episode; "" where it shows in all of them together."""
    bar: int | None = None
    """The bar of the episode, 0 that of the first action; negative in the warm-up."""
    before: float | None = None
    """The value there in the run that it is compared with."""
    after: float | None = None
    """The value there."""
    places: int = 1
    """At how many places it shows."""

    @classmethod
    def at(cls, part: str, problem: str, episode: str, bar: int, values: Iterable[float], places: int = 1) -> PartAtFault:
        """Return a fault that shows at a bar, by the values there before and after; NaN where no value is."""
        before, after = (None if math.isnan(value) else value for value in values)
        return cls(part, problem, episode, bar, before, after, places)

    def line(self) -> str:
        """Return it as a line."""
        where = f" in {self.episode} at bar {self.bar}: {_text(self.before)} became {_text(self.after)}" if self.bar is not None else ""
        more = f" ({self.places:,} places)" if self.places > 1 else ""
        return f"{self.part}: {self.problem}{where}{more}"


def _text(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.10g}"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One of the checks."""

    check: CheckName
    """Which one."""
    looked_at: str
    """What was looked at, in words."""
    faults: tuple[PartAtFault, ...] = ()
    """What is wrong; nothing in a pipeline that is as it should be."""
    notes: tuple[str, ...] = ()
    """What could not be looked at, and why."""
    part: str = ""
    """Of a walk-forward, what was checked, such as "train 0"; "": all that is played."""

    def text(self) -> str:
        """Return it as lines: the first says whether there is a fault."""
        of = f"{self.part}, " if self.part else ""
        lines = [f"{of}{self.check}: {f'{len(self.faults)} parts at fault' if self.faults else 'no fault'}; {self.looked_at}"]
        lines += [f"  FAULT {fault.line()}" for fault in self.faults]
        lines += [f"  note  {note}" for note in self.notes]
        return "\n".join(lines) + "\n"

    def table(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)
