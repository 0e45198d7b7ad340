"""Of the addresses that a server lists a client takes those it can reach, and the statistics of several runners add up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policyserver.client import ServerStats, TrainingIteration
from policyserver.client.listed_runners import reachable

STATS = ServerStats()
TRAINING = TrainingIteration(iteration=3)


@pytest.mark.parametrize(
    ("given", "listed", "expected"),
    [
        pytest.param("127.0.0.1:9900", ["127.0.0.1:9900", "127.0.0.1:9901"], ["127.0.0.1:9900", "127.0.0.1:9901"], id="as they are"),
        pytest.param("localhost:9901", ["127.0.0.1:9900", "127.0.0.1:9901"], ["localhost:9900", "localhost:9901"], id="by the given name"),
        pytest.param("server:9900", ["0.0.0.0:9901", "0.0.0.0:9900"], ["server:9901", "server:9900"], id="every interface"),
        pytest.param("[::1]:9900", ["[::]:9900", "[::]:9901"], ["[::1]:9900", "[::1]:9901"], id="IPv6"),
        pytest.param("a:9900", ["a:9900", "b:9900"], ["a:9900", "b:9900"], id="several hosts"),
        pytest.param("tunnel:9900", ["a:9900", "b:9900"], [], id="several hosts behind another name"),
        pytest.param("localhost:19900", ["127.0.0.1:9900", "127.0.0.1:9901"], [], id="a tunnel"),
        pytest.param("unix:/a/s", ["unix:/a/s", "unix:/a/s.1"], ["unix:/a/s", "unix:/a/s.1"], id="unix sockets"),
        pytest.param("unix:/mnt/s.1", ["unix:/a/s", "unix:/a/s.1"], ["unix:/mnt/s", "unix:/mnt/s.1"], id="in a folder mounted elsewhere"),
        pytest.param("unix:/a/s", ["unix:s", "unix:s.1"], ["unix:/a/s", "unix:/a/s.1"], id="relative to the server's folder"),
        pytest.param("localhost:9900", ["127.0.0.1:9900", "unix:/a/s"], ["localhost:9900"], id="one process on a port and a socket"),
        pytest.param("localhost:9900", ["127.0.0.1:9900"] * 2, ["localhost:9900"], id="twice"),
        pytest.param("localhost:9900", [], [], id="a server that lists nothing"),
        pytest.param("localhost:9900", ["nonsense"], [], id="no addresses"),
    ],
)
def test_the_listed_addresses_are_those_that_this_client_can_reach(given: str, listed: list[str], expected: list[str]) -> None:
    assert list(reachable(given, listed)) == expected


def test_the_statistics_of_runners_add_up() -> None:
    one = replace(STATS, boot_id="a", uptime_s=5.0, actions=10, reward_sum=1.5, steps_handed_off=30, staleness_mean=1.0, weights_seq_no=4)
    other = replace(
        one, boot_id="b", uptime_s=9.0, weights_seq_no=5, steps_handed_off=10, staleness_mean=3.0, return_mean=4.0,
        training=TRAINING,
    )  # fmt: skip
    newest = replace(TRAINING, iteration=4)
    assert ServerStats.merge([one]) is one
    both = ServerStats.merge([one, other])
    assert (both.boot_id, both.uptime_s, both.weights_seq_no) == ("a+b", 9.0, 5)
    assert (both.actions, both.reward_sum, both.steps_handed_off) == (20, 3.0, 40)
    assert (both.staleness_mean, both.return_mean, both.training) == (1.5, 4.0, TRAINING)
    assert ServerStats.merge([replace(other, training=newest), other]).training == newest
    assert ServerStats.merge([replace(one, steps_handed_off=0)] * 2).staleness_mean == 0.0
    with pytest.raises(ValueError, match="received none"):
        ServerStats.merge([])
