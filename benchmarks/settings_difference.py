"""Which settings of a configuration differ from the shipped defaults: what a page of figures says beside them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any


def differing(settings: Any) -> dict[str, Any]:
    """Return the settings that differ from their class's defaults, by dotted key.

    Args:
        settings: a dataclass instance whose fields all have defaults.
    """
    return dict(_differing(settings, type(settings)(), ""))


def shown(settings: Mapping[str, Any]) -> str:
    """Write settings down, one `key = value` a line, as TOML where TOML has the type; None is written as files of settings say it."""
    settings = {key: "none" if value is None else value for key, value in settings.items()}
    return "\n".join(f"{key} = {json.dumps(value, default=str)}" for key, value in settings.items()).replace("Infinity", "inf")


def _differing(value: Any, default: Any, key: str) -> list[tuple[str, Any]]:
    if dataclasses.is_dataclass(value) and type(value) is type(default):
        parts = [(field.name, getattr(value, field.name), getattr(default, field.name)) for field in dataclasses.fields(value)]
        return [pair for name, item, other in parts for pair in _differing(item, other, f"{key}.{name}" if key else name)]
    if isinstance(value, Mapping) and value != default:
        others = default if isinstance(default, Mapping) else {}
        return [pair for name, item in value.items() for pair in _differing(item, others.get(name), f"{key}.{name}")]
    return [(key, value)] if value != default else []
