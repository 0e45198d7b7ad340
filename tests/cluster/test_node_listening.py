"""A node on which a serving actor could not listen is named before one is put there, in one line that says what to do.

The status is one after which a service manager tries again: it may be mended there meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.cluster.cluster import KEY, SETTINGS, TOKEN, Cluster, ClusterDaemon, serve_command
from tests.cluster.hosts import Host
from tests.cluster.test_joining import refused

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.long, pytest.mark.timeout(1200)]

ONE_ACTOR = SETTINGS.replace("num_env_runners = 2", "num_env_runners = 1")


def test_a_node_whose_files_cannot_be_used_is_named_with_the_file(two_hosts: Sequence[Host]) -> None:
    first, second = two_hosts
    cluster = Cluster(two_hosts)
    serve = serve_command(first, ONE_ACTOR)
    key = second.path(KEY)
    kept = key.read_bytes()

    key.unlink()
    text = refused(first.complete(*serve, env=cluster.environment), status=1)
    assert f"node {second.address} ({second.name}): listen.tls_key_file: expected a readable file, received {KEY}" in text

    key.write_bytes(kept)
    key.chmod(0o644)
    text = refused(first.complete(*serve, env=cluster.environment), status=1)
    assert f"node {second.address} ({second.name}): listen.tls_key_file: expected a file that its owner alone can read" in text
    assert "ray.serving_labels" in text, "what else one may do"

    key.chmod(0o600)
    second.write(TOKEN, b"another-token-of-its-own")
    daemon = ClusterDaemon(cluster, ONE_ACTOR)
    daemon.wait_for(f"listen.token_file: node {second.address} ({second.name}) has another token than this machine")


def test_an_address_that_a_node_lacks_is_named_and_a_resource_that_none_has(two_hosts: Sequence[Host]) -> None:
    first, second = two_hosts
    cluster = Cluster(two_hosts)
    for host, expected in (("eth7", "an interface of this machine"), ("192.0.2.7", "an address of its own")):
        serve = serve_command(first, ONE_ACTOR.replace("node:9900", f"{host}:9900"))
        text = refused(first.complete(*serve, env=cluster.environment), status=1)
        assert f"node {second.address} ({second.name}): listen.address: expected " in text
        assert expected in text
        assert host in text

    serve = serve_command(first, ONE_ACTOR.replace("{serving = 1}", "{servng = 1}"))
    text = refused(first.complete(*serve, env=cluster.environment), status=1)
    assert "found room for 0 on no node (none has servng; they have CPU, " in text
    assert "serving); start nodes with `--resources`" in text
