"""Policies that are served beside the one that learns."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge

from policyserver.common.settings import Config

LIVE_NAMES = ("live", "live@start")
"""What episodes call the policy that learns."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> None:
    """Refuse what can't name a policy.

    Raises:
        ValueError: It has other characters, or is a name of the policy that learns.
    """
    if name in LIVE_NAMES or not _NAME.fullmatch(name):
        expected = "a name of up to 64 letters, digits and . _ - that is not `live`"
        raise ValueError(f"expected {expected}, the policy that learns, received {name!r}")


@dataclass(frozen=True)
class PoliciesConfig(Config):
    """Which checkpoints are served beside the policy that learns, to episodes that name them, and how many at most."""

    load: dict[str, Any] = field(default_factory=dict)
    """Checkpoints that are loaded at the start, by the name of the policy: the number of one of this run, or the folder of any, such as
    `champion = 12` or `other = "runs/other/checkpoints/checkpoint-00000007"`. A checkpoint is code, so a folder can be named here alone."""
    most: Annotated[int, Ge(0)] = 8
    """Policies that may be loaded at once."""
    most_bytes: Annotated[int, Ge(0)] = 2**30
    """Bytes that these may take together, weights and filters, in each serving process."""
    most_versions: Annotated[int, Ge(0)] = 4
    """Versions of the policy that learns that a serving process holds for the open episodes of `live@start`, the newest included."""

    def _check(self) -> None:
        if len(self.load) > self.most:
            raise ValueError(f"load: expected at most {self.most} (policies.most), received {len(self.load)}")
        for name, checkpoint in self.load.items():
            try:
                check_name(name)
            except ValueError as error:
                raise ValueError(f"load: {error}") from error
            is_number = isinstance(checkpoint, int) and not isinstance(checkpoint, bool) and checkpoint > 0
            if not is_number and not (isinstance(checkpoint, str) and checkpoint):
                raise ValueError(
                    f"load.{name}: expected the number of a checkpoint of this run, or a checkpoint's folder, received {checkpoint!r}"
                )
