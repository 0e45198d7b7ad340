"""A serving host is cut off, healed, and another one killed: learning goes on, and clients act elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import pytest

from tests.cluster.cluster import SETTINGS, Cluster, ClusterDaemon, Player, until
from tests.cluster.hosts import Host
from tests.conftest import CARTPOLE

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(1200)]

CUT_S = 25.0
LONGEST_PAUSE_S = 6.0
SILENT_S = 5.0
"""After which an actor is left out; where updates take longer than half a second, the pause is that and two of them."""
ELSEWHERE_S = 15.0


def longest_without_update(player: Player, seconds: float) -> float:
    """Watch which policy version a player is answered by; returns the longest time in which it stayed."""
    longest_s, version, since_s = 0.0, player.newest()["version"], time.monotonic()
    end_s = since_s + seconds
    while (now_s := time.monotonic()) < end_s:
        if (newest := player.newest()["version"]) != version:
            version, since_s = newest, now_s
        longest_s = max(longest_s, now_s - since_s)
        time.sleep(0.05)
    return longest_s


def test_learning_goes_on_and_clients_act_elsewhere(three_hosts: Sequence[Host]) -> None:
    cluster = Cluster(three_hosts)
    first, *others = three_hosts
    daemon = ClusterDaemon(cluster, SETTINGS + CARTPOLE)
    daemon.wait_for("ready after")
    where = dict(zip((address.partition(":")[0] for address in daemon.addresses()), daemon.addresses(), strict=True))
    stays, cut = others
    at_one = Player(first, where[stays.address], 24, spread=False)
    at_both = Player(first, where[stays.address], 16)
    until(lambda: at_one.newest()["version"] >= 2 and at_both.newest()["version"] >= 2, 120.0, daemon)
    usual_s = longest_without_update(at_one, 10.0)

    cut.cut()
    longest_s = longest_without_update(at_one, CUT_S)
    sys.stdout.write(f"longest time without an update: {longest_s:.2f} s, usually {usual_s:.2f} s\n")
    assert longest_s <= max(LONGEST_PAUSE_S, SILENT_S + 2.0 * usual_s), f"{longest_s:.1f} s, usually {usual_s:.1f} s:\n{daemon.text()}"
    assert "is silent for" in daemon.text()
    assert at_both.newest()["longest_s"] <= ELSEWHERE_S, at_both.newest()
    assert at_both.newest()["errors"].keys() <= {"EpisodeLostError"}

    cut.heal()
    daemon.wait_for("is heard of again", 90.0)
    until(lambda: len(at_both.newest()["runners"]) == 2, 90.0, daemon)
    version = at_one.newest()["version"]
    until(lambda: at_one.newest()["version"] >= version + 2, 120.0, daemon)

    stays.close()
    steps = at_both.newest()["steps"]
    until(lambda: at_both.newest()["steps"] > steps + 500, 90.0, daemon)
    assert at_both.newest()["longest_s"] <= ELSEWHERE_S, at_both.newest()
    until(lambda: at_both.newest()["version"] >= version + 3, 120.0, daemon)


@pytest.mark.slow
def test_appo_learns_on_without_the_episodes_of_a_host_that_is_cut_off(three_hosts: Sequence[Host]) -> None:
    cluster = Cluster(three_hosts)
    first, *others = three_hosts
    of_appo = f'algorithm.name = "APPO"\n{SETTINGS}{CARTPOLE}'.replace("minibatch_size = 250\n", "")
    daemon = ClusterDaemon(cluster, of_appo)
    daemon.wait_for("ready after")
    where = dict(zip((address.partition(":")[0] for address in daemon.addresses()), daemon.addresses(), strict=True))
    stays, cut = others
    players = [Player(first, where[host.address], count, spread=False) for host, count in ((stays, 24), (cut, 16))]
    until(lambda: all(player.newest()["version"] >= 2 for player in players), 120.0, daemon)
    usual_s = longest_without_update(players[0], 10.0)
    cut.cut()
    longest_s = longest_without_update(players[0], CUT_S)
    sys.stdout.write(f"longest time without an update of APPO: {longest_s:.2f} s, usually {usual_s:.2f} s\n")
    assert longest_s <= LONGEST_PAUSE_S + usual_s, f"{longest_s:.1f} s, usually {usual_s:.1f} s:\n{daemon.text()}"
    assert "Traceback" not in daemon.text()
