"""What a viewer chose to see (a run, a symbol, a policy, a range of time), and which of its rows are new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policyserver.monitoring.schema import Measurement

_KEYS = ("run", "symbol", "policy", "range")


@dataclass(frozen=True, slots=True)
class PageSelection:
    """The choice; what isn't set doesn't restrict."""

    run: str | None = None
    """Name of the run; unset: the one with the newest points."""
    symbol: str | None = None
    """Only this symbol, in measurements with symbols."""
    policy: str | None = None
    """Only this policy."""
    range_s: int | None = None
    """Only this long before the run's newest point, seconds; unset: the whole run."""

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> PageSelection:
        """Read the parameters of an address, an empty one as unset; ValueError if the range isn't a number of seconds."""
        run, symbol, policy, range_text = (query.get(key) or None for key in _KEYS)
        if range_text is not None and not (range_text.isdecimal() and 0 < int(range_text) <= 10**9):
            raise ValueError(f"range: expected a whole number of seconds above 0, received {range_text!r}; leave it out for the whole run")
        return cls(run, symbol, policy, int(range_text) if range_text else None)

    def tags(self, measurement: Measurement) -> dict[str, str]:
        """Return the tags, other than the run, that rows of a measurement must have."""
        wanted = {"symbol": self.symbol, "policy": self.policy}
        return {tag: value for tag, value in wanted.items() if value is not None and tag in measurement.tags}


class NewRows:
    """The rows of a run that a selection takes and that are new since the last look, as a condition in SQL and its parameters."""

    def __init__(self, selection: PageSelection, run: str, measurement: Measurement, **parameters: Any) -> None:
        """Begin with the first row; a statement may have further `parameters`."""
        tags = selection.tags(measurement)
        self.tags = "".join(f" AND +{tag} = :{tag}" for tag in tags)
        """Part of the condition that is about tags."""
        self.condition = f"id > :after AND id <= :upto AND +run = :run{self.tags}"
        self.parameters: dict[str, Any] = {"run": run, **tags, **parameters}
        self.after: int | None = None
        """Id up to which the last look went; None before the first look."""

    def upto(self, newest_id: int, after: int = 0) -> dict[str, Any]:
        """Return the parameters of a look up to an id, the first one from the id `after` on. In an emptied table ids begin anew."""
        after = after if self.after is None else self.after
        self.after = newest_id
        return self.parameters | {"after": after if after <= newest_id else 0, "upto": newest_id}
