"""The addresses that a server lists for its serving runners -> how this client reaches them."""

from __future__ import annotations

from collections.abc import Sequence

from policyserver.common.endpoints import parse_address

__all__ = ["reachable"]

_UNIX = "unix:"


def reachable(given: str, listed: Sequence[str]) -> tuple[str, ...]:
    """Find the targets of all serving runners as seen from here, in the listed order.

    A server knows itself by what it listens on: 0.0.0.0, a name inside its container, a folder that is mounted elsewhere here. So if all
    runners share one host (or folder), it is the one that this client was given. If the given port (or file name) is not among the listed
    ones, there is a tunnel or a proxy in between, and the others' ports mean nothing here, or some other server.

    Args:
        given: the target that reaches one of them.
        listed: what that one says of all.

    Returns:
        The targets; none if the others cannot be told.
    """
    try:
        targets = dict.fromkeys(parse_address(address) for address in listed)
    except ValueError:
        return ()
    alike = [target for target in targets if target.startswith(_UNIX) == given.startswith(_UNIX)]
    place, name = _split(given)
    names = [_split(target)[1] for target in alike]
    if name in names and len({_split(target)[0] for target in alike}) == 1:
        return tuple(place + other for other in names)
    return tuple(alike) if given in alike else ()


def _split(target: str) -> tuple[str, str]:
    """Split into host and port, or folder and file name."""
    separator = "/" if target.startswith(_UNIX) else ":"
    scheme = _UNIX if target.startswith(_UNIX) else ""
    folder, slash, name = target.removeprefix(scheme).rpartition(separator)
    return scheme + folder + slash, name
