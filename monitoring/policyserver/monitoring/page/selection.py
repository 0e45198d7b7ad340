"""What a viewer chose to see: a run, a symbol, a policy, a range of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from policyserver.monitoring.schema import Measurement

_KEYS = ("run", "symbol", "policy", "range")


@dataclass(frozen=True, slots=True)
class PageSelection:
    """The choice; what is not set is not restricted."""

    run: str | None = None
    """Name of the run; unset: the one with the newest points."""
    symbol: str | None = None
    """Only this symbol, in measurements that tell symbols apart."""
    policy: str | None = None
    """Only this policy."""
    range_s: int | None = None
    """Only this long before the run's newest point, seconds; unset: the whole run."""

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> PageSelection:
        """Read the parameters of an address; an empty one counts as unset.

        Raises:
            ValueError: the range is not a number of seconds.
        """
        run, symbol, policy, range_text = (query.get(key) or None for key in _KEYS)
        if range_text is not None and not (range_text.isdecimal() and 0 < int(range_text) <= 10**9):
            raise ValueError(f"range: expected a whole number of seconds above 0, received {range_text!r}; leave it out for the whole run")
        return cls(run, symbol, policy, int(range_text) if range_text else None)

    def tags(self, measurement: Measurement) -> dict[str, str]:
        """Return the tags that the rows of a measurement must have, the run apart."""
        wanted = {"symbol": self.symbol, "policy": self.policy}
        return {tag: value for tag, value in wanted.items() if value is not None and tag in measurement.tags}
