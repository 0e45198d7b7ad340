"""A serving host is cut off from the daemon and its client is not: stale, then NOT_SERVING, then as before; each step counts once."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.cluster.cluster import SETTINGS, Cluster, ClusterDaemon, status, until
from tests.cluster.hosts import Host
from tests.cluster.ledgers import LedgerPlayer, of
from tests.conftest import CARTPOLE

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(1200)]

GRACE_S, SILENT_S = 10.0, 5.0
"""The grace is long enough for a question about the health within it, by a process that has to start."""
PATIENT = {"RAY_health_check_failure_threshold": "60"}
"""Ray is not to give up the node: after a cut of more than 25 s its connection is tried again at 51 s alone, as TCP doubles its pauses."""
_HEALTH = """
import sys, grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
with open("/tmp/tls/certificate", "rb") as file:
    credentials = grpc.ssl_channel_credentials(file.read())
with grpc.secure_channel(sys.argv[1], credentials, [("grpc.enable_http_proxy", 0)]) as channel:
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10.0)
print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
"""


def health(host: Host, address: str) -> str:
    return host.run(sys.executable, "-c", _HEALTH, address).strip()


def counted(stats: Mapping[str, Any]) -> int:
    """Return the steps of an actor that are in one of its counters."""
    names = ("handed_off", "waiting", "cut_off", "paused", "dropped", "untrained")
    return sum(int(stats[f"steps_{name}"]) for name in names)


def test_a_cut_actor_serves_for_a_while_and_each_step_counts_once(three_hosts: Sequence[Host]) -> None:
    cluster = Cluster(three_hosts, variables=PATIENT)
    first, *others = three_hosts
    settings = SETTINGS.replace("[ray]", f"[ray]\npartition_grace_s = {GRACE_S}")
    daemon = ClusterDaemon(cluster, settings + CARTPOLE)
    daemon.wait_for("ready after")
    where = {address.partition(":")[0]: address for address in daemon.addresses()}
    stays, cut = others
    there = where[cut.address]
    beside = LedgerPlayer(cut, there, 8, 80.0, spread=False)  # which is cut off with its actor
    at_both = LedgerPlayer(first, where[stays.address], 16, 400.0)
    until(lambda: beside.newest()["version"] >= 1 and at_both.newest()["version"] >= 1, 120.0, daemon)
    assert beside.newest()["stale"] == at_both.newest()["stale"] == 0

    cut.cut()
    cut_s = time.monotonic()
    until(lambda: beside.newest()["stale_now"] == [there], SILENT_S + 60.0, daemon)
    assert health(cut, there) == "SERVING"
    until(lambda: status(first)["actors_silent"] == [daemon_index(daemon, there)], 60.0, daemon)
    told = {each["number"]: each for each in status(first)["serving_actors"]}
    silent = told.pop(daemon_index(daemon, there))
    assert (silent["state"], silent["host"], silent["addresses"]) == ("silent", cut.name, [there])
    assert [each["state"] for each in told.values()] == ["serving"]
    completed = beside.newest()["completed"]
    until(lambda: health(cut, there) == "NOT_SERVING", SILENT_S + GRACE_S + 60.0, daemon)
    assert time.monotonic() - cut_s >= GRACE_S
    assert beside.newest()["completed"] > completed, "it served its last version until then"
    until(lambda: beside.newest()["refusals"].get("SHUTTING_DOWN", 0) > 0, 60.0, daemon)
    started, version = beside.newest()["started"], at_both.newest()["version"]
    until(lambda: at_both.newest()["version"] >= version + 1, 120.0, daemon)
    assert beside.newest()["started"] == started, "no new episodes"
    assert at_both.newest()["longest_s"] <= 15.0, at_both.newest()

    cut.heal()
    daemon.wait_for("is heard of again", 90.0)
    until(lambda: health(cut, there) == "SERVING", 90.0, daemon)
    until(lambda: beside.newest()["started"] > started and not beside.newest()["stale_now"], 90.0, daemon)
    until(lambda: status(first)["actors_silent"] == [], 60.0, daemon)
    until(lambda: {each["state"] for each in status(first)["serving_actors"]} == {"serving"}, 60.0, daemon)
    until(lambda: of(at_both, there, "clients_connected") == 2, 90.0, daemon)
    opened = of(at_both, there, "episodes_started")
    until(lambda: of(at_both, there, "episodes_started") > opened + 20, 120.0, daemon)
    handed_off = of(at_both, there, "steps_handed_off")
    until(lambda: of(at_both, there, "steps_handed_off") > handed_off, 120.0, daemon)
    version = at_both.newest()["version"]
    until(lambda: at_both.newest()["version"] >= version + 2, 120.0, daemon)  # what did not arrive is known by now

    filler = LedgerPlayer(first, where[stays.address], 4, 100.0)
    until(lambda: filler.newest()["stats"], 90.0, daemon)
    ledgers = [beside.end(), at_both.end()]
    assert ledgers[0]["in_doubt"] == 0, "it never lost its actor"
    assert 0 < ledgers[0]["stale"] < ledgers[0]["completed"]

    def remainder() -> int:
        """Return the steps that were handed off and arrived, and are not trained on yet."""
        stats = filler.newest()["stats"]
        if len(stats) < 3:
            return -1
        return int(sum(stats[each]["steps_handed_off"] for each in where.values()) - undelivered - stats["trained"]["steps"])

    undelivered = int(status(first)["steps_undelivered"])
    until(lambda: remainder() == 0, 120.0, daemon)  # between a batch and the first part of the next
    ledgers.append(filler.end())
    stats = ledgers[-1]["stats"]
    actors = [stats[each] for each in where.values()]
    assert actors[0]["boot_id"] != actors[1]["boot_id"]
    completed, in_doubt = (sum(each[name] for each in ledgers) for name in ("completed", "in_doubt"))
    recorded = sum(each["steps_completed"] for each in actors)
    assert completed <= recorded <= completed + in_doubt
    assert [counted(each) for each in actors] == [each["steps_completed"] for each in actors]
    assert stats[there]["steps_cut_off"] > 0
    assert stats[where[stays.address]]["steps_cut_off"] == 0


def daemon_index(daemon: ClusterDaemon, address: str) -> int:
    """Return the number of the actor at an address."""
    return daemon.addresses().index(address) + 1
