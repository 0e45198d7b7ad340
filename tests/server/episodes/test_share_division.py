"""Who counts as one, and how a total is divided."""

from __future__ import annotations

import pytest

from policyserver.server.episodes.shares import _shares, connection_of


def test_on_a_unix_socket_a_connection_is_a_client() -> None:
    assert connection_of("unix:", "a") != connection_of("unix:", "b")
    assert connection_of("ipv4:127.0.0.1:4000", "a") == connection_of("ipv4:127.0.0.1:4000", "b")


@pytest.mark.parametrize(
    ("wanted", "total", "shares"),
    [
        ({"a": 10, "b": 1}, 4, {"a": 3, "b": 1}),
        ({"a": 10, "b": 10}, 4, {"a": 2, "b": 2}),
        ({"a": 1, "b": 1}, 10, {"a": 1, "b": 1}),
        ({"a": 5, "b": 1, "c": 9}, 10, {"a": 4, "b": 1, "c": 5}),
        ({"a": 1, "b": 1, "c": 1}, 2, {"a": 1, "b": 1, "c": 1}),
    ],
)
def test_nobody_gets_more_than_wanted_and_what_is_left_goes_to_the_others(
    wanted: dict[str, int], total: int, shares: dict[str, int]
) -> None:
    assert _shares(wanted, total) == shares
