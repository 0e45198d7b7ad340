"""deploy/compose.yaml, checked as far as a machine without Docker can: its parts fit together, and its commands run and get healthy."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse

import deploy.health
from deploy.health import main as check_health
from policyserver.common.settings import load
from policyserver.monitoring.points import Points
from policyserver.monitoring.store.store import EmbeddedStore
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.demo.setup import DEMO_SERVER
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.daemon import _longest_stop_s
from policyserver.server.grpc_front.listen_security import check_listen
from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import policy_service_pb2_grpc as pb_grpc
from tests.services import InfluxServer, wait_until

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE_TEXT = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
SOCKET = "unix:/run/policy/server.sock"

TOOLS = {"influxdb": {"influx"}, "grafana/grafana": {"wget"}, "rllib-policy-server": {"python"}}
"""What a health check may call, by image: the database's own client, BusyBox's wget in Grafana's Alpine, Python in ours."""

each_service = pytest.mark.parametrize("name", SERVICES)


def mounts(name: str) -> dict[str, str]:
    """Return what lies where in a container: place to source."""
    return {parts[1]: parts[0] for parts in (text.split(":") for text in SERVICES[name]["volumes"])}


def variables(text: str) -> set[str]:
    return set(re.findall(r"\$\{(\w+)", text))


# The file ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.process
def test_the_secrets_that_compose_asks_for_are_those_of_the_example_and_none_has_a_value_there() -> None:
    example = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    assert variables(COMPOSE_TEXT) == set(example)
    assert not any(example.values()), "an example's secret would be used as it is"
    assert COMPOSE_TEXT.count("${") == COMPOSE_TEXT.count(":?"), "an empty secret is refused, never used"
    ignored = subprocess.run(["git", "check-ignore", "--quiet", "deploy/.env"], cwd=ROOT, check=False)
    assert ignored.returncode == 0, "secrets stay out of the repository"


@each_service
def test_only_loopback_is_published(name: str) -> None:
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in SERVICES[name].get("ports", []))
    assert SERVICES[name].get("network_mode") is None


@each_service
def test_an_image_is_pinned_or_built_here(name: str) -> None:
    image, _, version = SERVICES[name]["image"].partition(":")
    assert image in TOOLS
    assert version not in ("", "latest") or image == "rllib-policy-server"
    builders = [service for service in SERVICES.values() if service["image"] == image and "build" in service]
    assert len(builders) == (image == "rllib-policy-server")


@each_service
def test_what_a_service_mounts_and_waits_for_exists(name: str) -> None:
    for source in mounts(name).values():
        assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], source
    for other, condition in SERVICES[name].get("depends_on", {}).items():
        assert condition == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[other]


@each_service
def test_a_health_check_calls_what_its_image_has(name: str) -> None:
    kind, tool, *arguments = SERVICES[name]["healthcheck"]["test"]
    assert kind == "CMD"
    assert tool in TOOLS[SERVICES[name]["image"].partition(":")[0]]
    if tool == "python":
        assert f"COPY deploy/health.py {arguments[0]}" in DOCKERFILE


def test_the_image_is_made_of_files_that_are_there_and_that_the_ignore_file_lets_through() -> None:
    build = SERVICES["server"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).read_text(encoding="utf-8") == DOCKERFILE
    copied = [source for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for source in line.split()]
    let_through = re.findall(r"^!(\S+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(copied) == sorted(let_through)
    assert all((ROOT / source).exists() for source in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {path.split("/")[0] for path in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert packages | {project["project"]["readme"], *project["project"]["license-files"]} <= set(copied), "pip builds the wheel of them"
    assert {SERVICES[name]["command"][0] for name in ("server", "pipeline")} <= set(project["project"]["scripts"])


def test_grafana_finds_its_dashboards_and_the_variables_of_its_data_source() -> None:
    grafana = SERVICES["grafana"]
    provisioning = mounts("grafana")["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((DEPLOY / provisioning / "dashboards" / "policy-server.yaml").read_text(encoding="utf-8"))["providers"]
    assert list((DEPLOY / mounts("grafana")[provider["options"]["path"]]).glob("*.json"))
    text = (DEPLOY / provisioning / "datasources" / "influxdb.yaml").read_text(encoding="utf-8")
    assert variables(text) <= set(grafana["environment"])
    (source,) = yaml.safe_load(text)["datasources"]
    assert source["type"] == "influxdb"
    assert source["jsonData"]["version"] == "InfluxQL"
    database = SERVICES["influxdb"]["environment"]
    assert grafana["environment"]["INFLUXDB_DATABASE"] == database["DOCKER_INFLUXDB_INIT_BUCKET"]
    for variable, key in (("INFLUXDB_V2_BUCKET", "BUCKET"), ("INFLUXDB_V2_ORG", "ORG"), ("INFLUXDB_V2_TOKEN", "ADMIN_TOKEN")):
        assert {SERVICES[name]["environment"][variable] for name in ("grafana", "server", "pipeline")} == {
            database[f"DOCKER_INFLUXDB_INIT_{key}"]
        }


def test_server_and_pipeline_meet_at_a_socket_in_a_volume_that_nobody_else_has() -> None:
    serving, asking = load(ServerConfig, DEPLOY / "server.toml"), load(PipelineConfig, DEPLOY / "pipeline.toml")
    assert serving.listen.address == asking.server.address == SOCKET
    check_listen(serving.listen)
    shared = {name: volume for name in SERVICES for place, volume in mounts(name).items() if place == "/run/policy"}
    assert shared == {"server": "socket", "pipeline": "socket"}
    assert (asking.recording.run, asking.recording.store) == (serving.run_folder.name, serving.store_file)
    assert asking.recording.policy == serving.algorithm.name
    assert SERVICES["server"]["healthcheck"]["test"][-2:] == [SOCKET, serving.run]
    assert SERVICES["pipeline"]["healthcheck"]["test"][-2:] == [str(asking.recording.store), asking.recording.run]
    assert mounts("server")["/runs"] == mounts("pipeline")["/runs"]
    assert serving.run_folder.is_relative_to("/runs")


def test_a_stop_has_the_time_that_it_takes() -> None:
    grace_s = float(SERVICES["server"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > _longest_stop_s(load(ServerConfig, DEPLOY / "server.toml"))


def test_the_policy_learns_with_the_settings_of_the_demo() -> None:
    ours, demo = load(ServerConfig, DEPLOY / "server.toml"), load(ServerConfig, DEMO_SERVER)
    assert (ours.algorithm, ours.hand_off, ours.spaces) == (demo.algorithm, demo.hand_off, demo.spaces)


# Health ------------------------------------------------------------------------------------------------------------------------------


class ServerOfLive(pb_grpc.PolicyServiceServicer):
    """Says which run it is of."""

    def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Any) -> pb.GetServerInfoResponse:
        return pb.GetServerInfoResponse(run="live")


def test_a_server_is_healthy_while_it_is_that_of_the_run_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy.health, "_TIMEOUT_S", 60.0)  # a busy machine may stand still for longer than a container may
    assert check_health(["server", f"unix:{tmp_path / 'nobody'}", "live"]) == 1
    assert "UNAVAILABLE" in capsys.readouterr().err
    address = f"unix:{tmp_path / 's'}"
    servicer = health.HealthServicer()
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    pb_grpc.add_PolicyServiceServicer_to_server(ServerOfLive(), server)
    server.add_insecure_port(address)
    server.start()
    assert check_health(["server", address, "live"]) == 0
    assert check_health(["server", address, "another"]) == 1
    assert "expected the server of run another, received that of live" in capsys.readouterr().err
    servicer.set("", HealthCheckResponse.NOT_SERVING)
    assert check_health(["server", address, "live"]) == 1
    server.stop(None).wait()


@pytest.mark.long
def test_a_pipeline_is_healthy_while_it_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "store.sqlite"
    assert check_health(["pipeline", str(file), "live"]) == 1
    assert "received nothing" in capsys.readouterr().err
    for age_s, status in ((60, 1), (0, 0)):
        store = EmbeddedStore(file)
        point = Points.one("node", {"run": "live", "worker": f"w{age_s}"}, {"processed": 1})
        point.times_ns -= age_s * 10**9
        store.write(point)
        store.close(30.0)
        assert check_health(["pipeline", str(file), "live"]) == status
    assert check_health(["pipeline", str(file), "another"]) == 1
    assert check_health(["pipeline"]) == 1


# The commands, for real --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def container_folders() -> Iterator[dict[str, str]]:
    """Folders of this machine in place of those in the containers; short, for a socket's path may have 107 bytes."""
    root = Path(tempfile.mkdtemp(prefix="compose-"))
    yield {"/run/policy": str(root / "socket"), "/runs": str(root / "runs"), "/etc/policy": str(root), "/opt": str(DEPLOY)}
    shutil.rmtree(root)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_run_get_healthy_record_and_stop_in_time(
    container_folders: dict[str, str], running_influx: InfluxServer, tmp_path: Path
) -> None:
    environment = (
        os.environ | SERVICES["server"]["environment"] | {"INFLUXDB_V2_URL": running_influx.url, "INFLUXDB_V2_TOKEN": "not-for-logs"}
    )

    def placed(text: str) -> str:
        for inside, outside in container_folders.items():
            text = re.sub(rf"(?<![\w/.-]){re.escape(inside)}(?=/|\b)", outside, text)
        return text

    def command(words: list[str]) -> list[str]:
        program, *arguments = words
        return [str(Path(sys.executable).with_name(program)), *map(placed, arguments)]

    def is_healthy(name: str) -> bool:
        check = command(SERVICES[name]["healthcheck"]["test"][1:])
        return subprocess.run(check, cwd=ROOT, env=environment, capture_output=True, check=False).returncode == 0

    Path(container_folders["/run/policy"]).mkdir()
    for name in ("server", "pipeline"):
        (Path(container_folders["/etc/policy"]) / f"{name}.toml").write_text(placed((DEPLOY / f"{name}.toml").read_text(encoding="utf-8")))
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in ("server", "pipeline"):
            assert not is_healthy(name)
            with (tmp_path / f"{name}.log").open("wb") as log:
                running[name] = subprocess.Popen(
                    command(SERVICES[name]["command"]), cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
                )
            wait_until(functools.partial(is_healthy, name), f"{name} to be healthy", 300.0)
        wait_until(lambda: running_influx.query("SELECT iteration FROM train"), "an iteration of training in InfluxDB", 300.0)
        wait_until(lambda: running_influx.query("SELECT reward FROM step LIMIT 1"), "a step in InfluxDB", 200.0)
        for name in ("pipeline", "server"):
            grace_s = float(SERVICES[name]["stop_grace_period"].removesuffix("s"))
            running[name].send_signal(signal.SIGTERM)
            asked_at = time.monotonic()
            assert running[name].wait(grace_s) == 0, (tmp_path / f"{name}.log").read_text()
            assert time.monotonic() - asked_at < grace_s
    finally:
        for process in running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    assert "not-for-logs" not in "".join((tmp_path / f"{name}.log").read_text() for name in running)
