"""The figures of what passes through the driver, and their part of the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).with_name("through_driver.json")


@dataclass(frozen=True, slots=True)
class PassedThrough:
    """Of one algorithm, for a step that a serving actor handed off."""

    driver_us: float
    """Processor time of the driver's process."""
    ray_us: float
    """Of Ray's processes on its host: raylet, object store and head."""
    received_bytes: float
    """That reached its host, from the serving actor and the learner."""
    sent_bytes: float
    """That left it, to the learner and, as weights, to the serving actor."""
    steps: int
    updates: int
    """Policy versions meanwhile."""
    seconds: float
    idle_driver_share: float
    """Share of a core that the driver takes without clients."""


def read() -> dict[str, PassedThrough]:
    """Read the figures, by algorithm."""
    return {name: PassedThrough(**figures) for name, figures in json.loads(FIGURES.read_text(encoding="utf-8")).items()}


def write(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the figures."""
    FIGURES.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def table(figures: Mapping[str, PassedThrough]) -> str:
    """Return the rows of the page."""
    return "\n".join(
        f"| {name} | {each.received_bytes:,.0f} | {each.sent_bytes:,.0f} | {each.driver_us:,.1f} | {each.ray_us:,.1f} | {each.steps:,} | "
        f"{each.updates:,} | {each.idle_driver_share:.1%} |"
        for name, each in figures.items()
    )
