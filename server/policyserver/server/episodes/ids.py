"""How long a name may be that a stranger gives: the server keeps it, of finished episodes too, so it has a bound."""

from __future__ import annotations

from policyserver.common.errors import InvalidInputError

MOST_ID_BYTES = 256
"""Bytes of an episode's or a client's id in UTF-8."""


def id_error(field: str, name: str) -> InvalidInputError | None:
    """Say that an id is too long, if it is."""
    if len(name) <= MOST_ID_BYTES // 4:  # no character takes more than four bytes
        return None
    size = len(name) if name.isascii() else len(name.encode())
    if size <= MOST_ID_BYTES:
        return None
    return InvalidInputError(f"{field}: expected at most {MOST_ID_BYTES} bytes of UTF-8, received {size}; choose a shorter id", field=field)
