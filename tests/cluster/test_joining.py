"""What is refused of a cluster, in one line that says what to do, and before anything is served."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import policyserver.server
from tests.cluster.cluster import (
    CERTIFICATE,
    KEY,
    PORT,
    SETTINGS,
    TOKEN,
    Cluster,
    ClusterDaemon,
    Player,
    serve_command,
    until,
    with_token,
    write_secrets,
)
from tests.cluster.hosts import Host
from tests.conftest import CARTPOLE

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.long, pytest.mark.timeout(1200)]


LOOK_S = 30.0
"""For a look at a cluster, besides twice what a refusal without one takes, imports above all; Ray itself looked for 60 s for a node."""


def refused(done: subprocess.CompletedProcess[str], status: int = 2) -> str:
    """Return the refusal: the last line."""
    assert done.returncode == status, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout.strip().splitlines()[-1]


def test_a_cluster_of_others_is_refused(two_hosts: Sequence[Host]) -> None:
    first, second = two_hosts
    own_file = Path(policyserver.server.__file__)
    second.replace(own_file, own_file.read_bytes() + b"\n# another commit\n")
    cluster = Cluster(two_hosts)

    one_actor = serve_command(first, SETTINGS.replace("num_env_runners = 2", "num_env_runners = 1"))
    text = refused(first.complete(*one_actor, env=cluster.environment))
    assert second.address in text, "the node"
    assert text.count("(sources ") == 2, "both versions"
    assert "install that one there" in text

    text = refused(first.complete(*serve_command(first, SETTINGS), env=cluster.environment), status=1)
    assert "room for 2 serving actors" in text
    assert "found room for 1" in text


def test_what_keeps_a_machine_out_is_told_within_seconds_and_each_cause_by_itself(two_hosts: Sequence[Host]) -> None:
    first, second = two_hosts
    cluster = Cluster([first])
    write_secrets(two_hosts, CERTIFICATE, KEY, TOKEN)
    of_another = with_token()
    without_look_s = 0.0  # of the first, which needs none

    def refusal(host: Host, environment: Mapping[str, str], status: int = 2) -> str:
        nonlocal without_look_s
        began_s = time.monotonic()
        done = host.complete(*serve_command(host, SETTINGS), env=environment)
        took_s = time.monotonic() - began_s
        without_look_s = without_look_s or took_s
        assert took_s < LOOK_S + 2.0 * without_look_s
        assert of_another["RAY_AUTH_TOKEN"] not in done.stdout
        assert len(done.stdout.splitlines()) == 1, done.stdout
        text = refused(done, status)
        assert "ray.address: " in text
        return text

    assert "expected the environment variable RAY_AUTH_MODE to be 'token' here, too, received none" in refusal(first, {})
    assert "expected one in the file ~/.ray/auth_token, which is missing" in refusal(first, {"RAY_AUTH_MODE": "token"})
    assert "the token in the environment variable RAY_AUTH_TOKEN is not that of the Ray cluster" in refusal(first, of_another)

    text = refusal(second, cluster.environment, status=1)  # a node may be there later: a service manager tries again
    assert f"on this machine ({second.name}): no Ray node runs here; its nodes are {first.address}. Run `ray start --address=" in text


def test_a_cluster_without_authentication_is_refused_unless_it_is_wanted(two_hosts: Sequence[Host]) -> None:
    first, _ = two_hosts
    write_secrets(two_hosts, CERTIFICATE, KEY, TOKEN)
    serve = serve_command(first, SETTINGS)
    text = refused(first.complete(*serve, env={}), status=1)
    assert "expected a Ray cluster's head" in text, "which may be there later: a service manager tries again"

    first.start_ray("--head", f"--port={PORT}", "--num-cpus=4", '--resources={"serving": 1}', env={})
    text = refused(first.complete(*serve, env={}))
    assert "without RAY_AUTH_MODE=token" in text
    assert "ray.insecure = true" in text

    done = first.complete(*serve, "--ray.insecure", "true", env={})
    assert "joined all the same" in done.stdout
    assert "found room for 1" in refused(done, status=1), "which is looked at after it has joined"


def test_as_many_cpus_as_the_actors_take_are_enough(two_hosts: Sequence[Host]) -> None:
    cluster = Cluster(two_hosts, serving=[])  # which have two each
    actors = "[algorithm.env_runners]\nnum_env_runners = 1\nnum_cpus_per_env_runner = 2\n"
    beside = "[algorithm.learners]\nnum_learners = 1\nnum_cpus_per_learner = {}\nnum_aggregator_actors_per_learner = 1\n"
    settings = 'algorithm.name = "APPO"\n' + SETTINGS.replace("[algorithm.env_runners]\nnum_env_runners = 2\n", actors) + CARTPOLE
    settings = settings.replace("serving_resources = {serving = 1}\n", "")

    text = refused(two_hosts[0].complete(*serve_command(two_hosts[0], settings + beside.format(2)), env=cluster.environment), status=1)
    assert "expected a cluster with at least 5 CPUs for the actors of this server, received one with 4" in text

    daemon = ClusterDaemon(cluster, settings + beside.format(1))
    daemon.wait_for("ready after")
    player = Player(two_hosts[0], daemon.addresses()[0], 16)
    until(lambda: player.newest()["version"] >= 2, 120.0, daemon)


def test_a_node_that_was_started_without_its_variables_is_named(two_hosts: Sequence[Host]) -> None:
    first, second = two_hosts
    cluster = Cluster([first], serving=[second])
    write_secrets(two_hosts, CERTIFICATE, KEY, TOKEN)
    cluster.join(second, without=["RAY_worker_niceness", "GRPC_EXPERIMENTS"])
    daemon = ClusterDaemon(cluster, SETTINGS.replace("num_env_runners = 2", "num_env_runners = 1"))
    daemon.wait_for("ready after")
    (line,) = [line for line in daemon.text().splitlines() if "was started without" in line]
    assert f"node {second.address} ({second.name})" in line
    assert "RAY_worker_niceness=0, GRPC_EXPERIMENTS=-event_engine_listener,-event_engine_client: " in line
    assert "give these environment variables to its `ray start`" in line
    (actor,) = second.processes("ray::ExternalEnvRunner")
    assert actor.nice() > 0, "which is what the first one is for"
