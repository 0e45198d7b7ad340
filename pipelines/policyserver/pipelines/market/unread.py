"""Settings that nothing reads beside others: refused, for they would seem to be obeyed."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any

from policyserver.common.settings import Config


def refuse_unread(config: Config, names: tuple[str, ...], beside: str) -> None:
    """Refuse the first of some settings that has not its default.

    Args:
        config: Has the settings.
        names: What they are called.
        beside: What they are not read beside, as "without a split", and what is to be set in their place.

    Raises:
        ValueError: One is set; the message begins with its name.
    """
    of_class: tuple[Field[Any], ...] = fields(config)  # type: ignore[arg-type]
    for each in of_class:
        if each.name in names:
            usual = each.default if each.default_factory is MISSING else each.default_factory()
            if (given := getattr(config, each.name)) != usual:
                raise ValueError(f"{each.name}: expected it to be left out {beside}, received {given!r}")
