"""`policy-server doctor` on a host of a cluster and on another one: head, token, node and room are looked at before a start."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest

from tests.cluster.cluster import CERTIFICATE, KEY, SETTINGS, TOKEN, Cluster, serve_command, with_token, write_secrets
from tests.cluster.hosts import Host

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.long, pytest.mark.timeout(1200)]

NAMES = ("Ray cluster", "Ray token", "Ray node", "Ray room")


def doctor(host: Host, settings: str, environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the level and what was found, of what is about the cluster."""
    program, _, *options = serve_command(host, settings)
    done = host.complete(program, "doctor", "--json", *options, env=environment)
    found = {check["name"]: (check["level"], check["found"]) for check in json.loads(done.stdout)["checks"]}
    return {name: found[name] for name in NAMES}


def test_a_cluster_is_looked_at_before_a_start(three_hosts: Sequence[Host]) -> None:
    *nodes, outside = three_hosts
    cluster = Cluster(nodes)
    write_secrets(three_hosts, CERTIFICATE, KEY, TOKEN)

    found = doctor(nodes[0], SETTINGS.replace("num_env_runners = 2", "num_env_runners = 1"), cluster.environment)
    assert {level for level, _ in found.values()} == {"ok"}, found
    assert "asks for a token" in found["Ray cluster"][1]
    assert "1 free of 1 on 2 nodes, for 1 serving actors that take {'CPU': 1.0, 'serving': 1" in found["Ray room"][1]

    found = doctor(outside, SETTINGS, cluster.environment)
    assert [found[name][0] for name in NAMES] == ["ok", "ok", "fault", "fault"], found
    assert "no Ray node runs here; its nodes are 10.77.0.1, 10.77.0.2. Run `ray start --address=" in found["Ray node"][1]
    assert "expected nodes with room for 2 serving actors" in found["Ray room"][1]
    assert "found room for 1 on 10.77.0.2" in found["Ray room"][1]

    of_another = with_token()
    found = doctor(nodes[0], SETTINGS, of_another)
    assert [found[name][0] for name in NAMES] == ["ok", "fault", "skipped", "skipped"], found
    assert "is not that of the Ray cluster" in found["Ray token"][1]
    assert of_another["RAY_AUTH_TOKEN"] not in str(found)
