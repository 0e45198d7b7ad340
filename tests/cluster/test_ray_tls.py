"""A cluster with Ray's TLS, made by the guide's commands, with a token and without: a daemon joins it, trains and serves."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence

import pytest

from tests.cluster.cluster import HEAD, SETTINGS, Cluster, ClusterDaemon, Player, serve_command, until, with_token
from tests.cluster.guide import FOLDER, block_with
from tests.cluster.hosts import Host
from tests.conftest import CARTPOLE
from tests.documents import commands

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.long, pytest.mark.timeout(1200)]

ASK = """
import sys
import grpc
credentials = grpc.ssl_channel_credentials(open(sys.argv[2], "rb").read(), *(open(file, "rb").read() for file in sys.argv[3:]))
with grpc.secure_channel(sys.argv[1], credentials) as channel:
    try:
        channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive", bytes, bytes)(b"", timeout=10.0)
        print("answered")
    except grpc.RpcError as error:
        print(error.code().name)
"""
ASK_AGENT = """
import sys, urllib.request
for address in sys.argv[1:]:
    try:
        print(urllib.request.urlopen(f"http://{address}/get_runtime_envs_info", data=b"", timeout=2.0).status)
    except Exception as error:
        print(getattr(error, "code", error))
"""
"""What a node's agent is asked by HTTP; nothing else of Ray's answers it."""


def certificates(hosts: Sequence[Host]) -> Mapping[str, str]:
    """Make them on the first host as the guide says, bring them to the others, and return the variables that the guide exports."""
    first, *others = hosts
    made = "\n".join(commands(block_with("openssl x509").text))
    names = "IP:127.0.0.1," + ",".join(f"IP:{host.address}" for host in hosts)
    made, replaced = re.subn(r"IP:127\.0\.0\.1[\w:.,]*", names, made)
    assert replaced == 1
    first.write(f"{FOLDER}/keep", b"")
    first.run("bash", "-ec", f"cd {FOLDER}\n{made}")
    variables = dict(re.findall(r"(RAY_\w+)=(\S+)", block_with("RAY_USE_TLS").text))
    for file in (file for file in variables.values() if file.startswith("/")):
        content = first.path(file).read_bytes()
        for host in others:
            host.write(file, content)
    return variables


@pytest.mark.parametrize("has_token", [False, True])
def test_a_daemon_joins_trains_and_serves(two_hosts: Sequence[Host], has_token: bool) -> None:
    first, serving = two_hosts
    variables = certificates(two_hosts)
    cluster = Cluster(two_hosts, authentication={**variables, **(with_token() if has_token else {})})
    settings = SETTINGS.replace("num_env_runners = 2", "num_env_runners = 1") + CARTPOLE

    done = first.complete(*serve_command(first, settings), env={})
    assert done.returncode == 1, done.stdout
    assert "needs RAY_USE_TLS=1 here, too" in done.stdout.splitlines()[-1]
    answer, agents_answer = ("UNAUTHENTICATED", "401") if has_token else ("answered", "200")
    authority, certificate, key = (variables[f"RAY_TLS_{name}"] for name in ("CA_CERT", "SERVER_CERT", "SERVER_KEY"))
    assert serving.run(sys.executable, "-c", ASK, HEAD, authority, key, certificate).strip() == answer
    assert serving.run(sys.executable, "-c", ASK, HEAD, authority).strip() == "UNAVAILABLE", "who has no certificate"

    listening = [line.split()[3] for line in serving.run("ss", "-Htln").splitlines() if serving.address in line]
    assert agents_answer in first.run(sys.executable, "-c", ASK_AGENT, *listening).split(), "so it needs a token"

    if not has_token:
        done = first.complete(*serve_command(first, settings), env=cluster.environment)
        assert done.returncode != 0
        assert "takes requests of anyone" in done.stdout
    daemon = ClusterDaemon(cluster, settings, *([] if has_token else ["--ray.insecure", "true"]))
    daemon.wait_for("ready after")
    (address,) = daemon.addresses()
    assert address.startswith(f"{serving.address}:")
    player = Player(first, address, 16)
    until(lambda: player.newest()["version"] >= 3, 120.0, daemon)
    assert not player.newest()["errors"]
    assert ("Ray's TLS and no token" in daemon.text()) == (not has_token)
