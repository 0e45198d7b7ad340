"""`ctl restart-actors` on a cluster: the actors of two nodes are replaced one by one, and each step counts once."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster.cluster import ACTOR, RUN, SETTINGS, Cluster, ClusterDaemon, ctl, until
from tests.cluster.hosts import Host
from tests.cluster.ledgers import LedgerPlayer, of
from tests.conftest import CARTPOLE
from tests.integration.ledger_player import newest

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.long, pytest.mark.timeout(1200)]


def test_no_step_is_lost_or_counted_twice(three_hosts: Sequence[Host], tmp_path: Path) -> None:
    cluster = Cluster(three_hosts)
    first, *others = three_hosts
    daemon = ClusterDaemon(cluster, SETTINGS + CARTPOLE)
    daemon.wait_for("ready after")
    addresses = daemon.addresses()
    players = [
        LedgerPlayer(first, addresses[0], 16, 240.0, timeout_s=60.0),
        LedgerPlayer(others[0], addresses[1], 8, 120.0, timeout_s=60.0),
    ]

    def boot_ids() -> list[str]:
        """Return which processes the first player reaches, in the order of the actors' numbers."""
        return [players[0].newest()["stats"].get(address, {}).get("boot_id", "") for address in addresses]

    until(lambda: min(player.newest()["version"] for player in players) >= 2 and all(boot_ids()), 120.0, daemon)
    before = boot_ids()

    replaced = ctl(first, "restart-actors", timeout_s=300.0)["actors"]
    assert [each["number"] for each in replaced] == [1, 2]
    assert [each["episodes_cut"] for each in replaced] == [0, 0]
    after = [each["boot_id"] for each in replaced]
    assert not set(after) & set(before)
    until(lambda: boot_ids() == after, 60.0, daemon)
    assert [len(host.processes(ACTOR)) for host in three_hosts] == [0, 1, 1]
    until(lambda: all(of(players[0], address, "episodes_started") > 0 for address in addresses), 60.0, daemon)  # at those of before
    version = players[0].newest()["version"]
    until(lambda: min(player.newest()["version"] for player in players) >= version + 2, 60.0, daemon)

    ledgers = [player.end() for player in players[1:]]

    def not_trained_on() -> int:
        """Return the steps that were acknowledged, and neither wait in an actor nor were trained on yet."""
        line = players[0].newest()
        stats = line["stats"]
        if len(stats) < 3:
            return -1
        waiting = sum(stats[each]["steps_completed"] - stats[each]["steps_handed_off"] for each in addresses)
        return int(line["completed"] + sum(each["completed"] for each in ledgers) - waiting - stats["trained"]["steps"])

    until(lambda: not_trained_on() == 0, 120.0, daemon)  # between a batch and the first part of the next
    ledgers.append(players[0].end())
    assert [(each["errors"], each["in_doubt"], each["lost"]) for each in ledgers] == [({}, 0, 0)] * 2
    for text in ("were restarted: their open episodes", "it is left out until it is heard of"):
        assert text not in daemon.text(), "their ends were planned"
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(120.0) == 0, daemon.text()
    (tmp_path / "store.sqlite").write_bytes(first.path(f"{RUN}/store.sqlite").read_bytes())  # SQLite opens none by a path through /proc
    episodes = newest(tmp_path, "episode")
    assert len(episodes) == len({row["episode"] for row in episodes}) == sum(each["ended"] for each in ledgers)
    assert sum(row["length"] for row in episodes) == sum(row["return"] for row in episodes) == sum(each["completed"] for each in ledgers)
