"""What decides episodes that name no policy."""

from __future__ import annotations

from dataclasses import dataclass, field

from policyserver.common.settings import Config

_TOLERANCE = 1e-6


@dataclass(frozen=True)
class TrafficConfig(Config):
    """How episodes that name no policy are divided among policies, or which policy shadows them."""

    shares: dict[str, float] = field(default_factory=dict)
    """Share of each policy, such as `{live = 0.9, champion = 0.1}`; together they are 1. An episode's id decides, so that the same id
    always gets the same. Unset: all are decided by `live`. The share of a policy that was dropped goes to `live`."""
    shadow: str | None = None
    """A loaded policy that is asked the same questions as `live`, with a recurrent state of its own; its actions are recorded and never
    sent. Unset: none."""

    def _check(self) -> None:
        for name, share in self.shares.items():
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
                raise ValueError(f"shares.{name}: expected a number above 0 and at most 1, received {share!r}")
        if self.shares and abs((total := sum(self.shares.values())) - 1.0) > _TOLERANCE:
            raise ValueError(f"shares: expected shares that add up to 1, received {self.shares}, which add up to {total:g}")
