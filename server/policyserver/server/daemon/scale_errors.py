"""Why the number of serving actors is not what was asked for."""

from __future__ import annotations


class ScaleError(RuntimeError):
    """There are not as many actors as were asked for; the text says why, and how many there are."""


class BoundsError(ScaleError):
    """So many there can't be."""


class NoRoomError(ScaleError):
    """The cluster has no room for another one."""
