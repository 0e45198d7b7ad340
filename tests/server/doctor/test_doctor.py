"""What `policy-server doctor` finds before a start: certificates, ports, folders, InfluxDB, Grafana; and that it leaves no trace."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from policyserver.server.doctor.check import Check, DoubtError, carry_out
from tests.commands import run_here
from tests.ports import free_address
from tests.services import InfluxServer, MissingService, program


@pytest.fixture
def influx(tmp_path: Path, missing_service: MissingService, monkeypatch: pytest.MonkeyPatch) -> Iterator[InfluxServer]:
    """An InfluxDB that wants a password, named in the environment."""
    server = InfluxServer(tmp_path / "influx", missing_service, ("user", "right"))
    server.start()
    for name, value in {"URL": server.url, "TOKEN": "user:right", "BUCKET": server.bucket, "ORG": "-"}.items():
        monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
    yield server
    server.kill()


class GrafanaDouble(BaseHTTPRequestHandler):
    """Answers as Grafana's HTTP API does.

    There is no Grafana in Debian or PyPI, so none runs here. The answers were held against the documentation of its HTTP API (the pages of
    data sources and of health, version 11) and its source (`checkDatasourceHealth`): a data source that fails is a 400 with `status` and
    `message`, an unknown one a 404 with `message`.
    """

    DATA_SOURCE: ClassVar[dict[str, Any]] = {"url": "http://influxdb:8086", "jsonData": {"dbName": "rl"}}
    DESCRIBED: ClassVar[dict[str, Any]] = {
        "id": 1, "uid": "influxdb", "orgId": 1, "name": "InfluxDB", "type": "influxdb", "typeLogoUrl": "", "access": "proxy", "user": "",
        "database": "", "basicAuth": False, "basicAuthUser": "", "withCredentials": False, "isDefault": True, "secureJsonFields": {},
        "version": 1, "readOnly": True, "accessControl": {"datasources:read": True},
    }  # fmt: skip
    FAILURE: ClassVar[str] = ""

    def do_GET(self) -> None:
        fails = self.FAILURE
        answers: dict[str, tuple[int, Any]] = {
            "/api/health": (200, {"commit": "5b7e48a", "database": "ok", "version": "11.6.0"}),
            "/api/datasources/uid/influxdb": (200, self.DESCRIBED | self.DATA_SOURCE),
            "/api/datasources/uid/influxdb/health": (
                (400, {"message": fails, "status": "ERROR"}) if fails else (200, {"message": "data source is working", "status": "OK"})
            ),
        }
        status, answer = answers.get(self.path, (404, {"message": "Data source not found", "messageId": "datasource.notFound"}))
        if self.path != "/api/health" and self.headers.get("Authorization") != "Bearer right":
            status, answer = 401, {"message": "Unauthorized", "messageId": "auth.unauthorized", "statusCode": 401, "traceID": ""}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def grafana() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), GrafanaDouble) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def doctor(*options: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Run it; return the status and the findings by name."""
    ended = run_here("policy-server", "doctor", "--json", *options)
    checks = json.loads(ended.stdout)["checks"]
    assert len({check["name"] for check in checks}) == len(checks)
    return ended.returncode, {check["name"]: check for check in checks}


def everything_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.process
@pytest.mark.long
def test_a_machine_on_which_all_is_well_and_no_trace_is_left(
    influx: InfluxServer, grafana: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", "right")
    below, children = everything_below(tmp_path / "influx" / "meta"), set(psutil.Process().children())
    status, found = doctor("--run_folder", str(tmp_path / "run"), "--listen.address", free_address(), "--grafana", grafana)
    assert {name: each for name, each in found.items() if each["level"] == "fault"} == {}
    assert status == 0
    assert found["InfluxDB"]["level"] == found["Grafana"]["level"] == found["algorithm"]["level"] == "ok"
    assert "takes points for the bucket rl" in found["InfluxDB"]["found"]
    assert influx.query("SHOW MEASUREMENTS") == []
    assert not (tmp_path / "run").exists()
    assert everything_below(tmp_path / "influx" / "meta") == below
    assert set(psutil.Process().children()) - children == set(), "expected no process of Ray's"


def expired_certificate(folder: Path) -> list[str]:
    """Make one, and return the options that name it."""
    for command in (
        "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -keyout key -out request",
        "openssl x509 -req -in request -signkey key -days 0 -out certificate",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    (folder / "token").write_text("0123456789abcdef")
    for name in ("key", "token"):
        (folder / name).chmod(0o600)
    files = {"tls_certificate_file": "certificate", "tls_key_file": "key", "token_file": "token"}
    return [word for name, file in files.items() for word in (f"--listen.{name}", str(folder / file))]


@pytest.mark.process
@pytest.mark.long
def test_everything_that_is_wrong_is_found_in_one_run(
    influx: InfluxServer, tmp_path: Path, missing_service: MissingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("openssl", missing_service)
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", "user:wrong")
    (tmp_path / "file").touch()
    wrong = ["--checkpoints.folder", str(tmp_path / "file"), "--algorithm.training", "{lr = -1}", "--grafana", influx.url]
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        options = ["--run_folder", str(tmp_path / "run"), "--listen.address", address, *expired_certificate(tmp_path), *wrong]
        status, found = doctor(*options)
    assert status == 1
    for name, level, text in (
        ("listen", "fault", "expected a certificate that is valid now"),
        ("listen.address", "fault", "is in use by another process"),
        ("checkpoints.folder", "fault", "is no folder"),
        ("algorithm", "fault", "algorithm.training.lr: expected"),
        ("InfluxDB", "warning", "does not take points for the bucket rl: 401"),
        ("Grafana", "warning", "expected Grafana, received something else"),
    ):
        assert (found[name]["level"], text in found[name]["found"]) == (level, True), found[name]
        assert found[name]["advice"]
    assert "wrong" not in found["InfluxDB"]["found"], "a secret"
    assert found["run_folder"]["level"] == "ok"
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_all_faults_of_a_configuration_are_told_and_what_does_without_them_is_looked_at(tmp_path: Path) -> None:
    file, folder = tmp_path / "server.toml", tmp_path / "file"
    folder.touch()
    text = """
        run_folder = "{run}"
        seed = -1
        [listen]
        adress = "127.0.0.1:1"
        [checkpoints]
        keep = 0
        folder = "{file}"
        [algorithm.training]
        lr = -1.0
        gama = 0.9
        [algorithm.rl_module.model_config]
        fcnet_hidens = [16]
        """
    file.write_text(text.format(run=tmp_path / "run", file=folder))
    with socket.create_server(("127.0.0.1", 0)) as other:
        page = f"127.0.0.1:{other.getsockname()[1]}"
        status, found = doctor("--config", str(file), "--recording.page", page)
    assert status == 1
    told = [each for name, each in found.items() if name.startswith("configuration")]
    assert [each["level"] for each in told] == ["fault"] * 3
    for key, says in (
        ("listen.adress", "unknown key; did you mean 'listen.address'"),
        ("seed", "received -1"),
        ("checkpoints.keep", "received 0"),
    ):
        (one,) = [each for each in told if f"{key}: " in each["found"]]
        assert says in one["found"]
        assert one["advice"] == "correct the key that the message names; `policy-server check-config` prints all"
    for name, says in (("listen", "listen"), ("listen.address", "listen.address")):
        assert (found[name]["level"], found[name]["found"]) == (
            "skipped", f"needs {says}, of which the configuration has a fault, see there",
        )  # fmt: skip
    assert "is no folder" in found["checkpoints.folder"]["found"]
    for says in ("algorithm.training.lr: expected", "algorithm.training.gama: unknown", "model_config.fcnet_hidens: unknown"):
        assert says in found["algorithm"]["found"]
    assert "already in use" in found["recording.page address"]["found"]
    assert (found["run_folder"]["level"], found["memory"]["name"]) == ("ok", "memory")


@pytest.mark.parametrize(
    ("name", "says", "advice"),
    [
        ("nowhere.toml", "No such file", "name a file that is there; `policy-server check-config > server.toml` writes one"),
        ("server.toml", "expected TOML", "correct the line that the message names"),
        ("", "Is a directory", "name a file that this user can read"),
    ],
)
def test_a_file_that_cannot_be_read_is_advised_on_and_hides_no_check_of_the_machine(
    tmp_path: Path, name: str, says: str, advice: str
) -> None:
    (tmp_path / "server.toml").write_text("run_folder = runs/server\n")
    status, found = doctor("--config", str(tmp_path / name), "--run_folder", str(tmp_path))
    assert status == 1
    assert says in found["configuration"]["found"]
    assert found["configuration"]["advice"].startswith(advice)
    assert found["memory"]["level"] != "skipped"
    assert found["run_folder"]["level"] == "ok", "an option is known"
    assert found["algorithm"]["level"] == found["recording"]["level"] == found["listen.address"]["level"] == "skipped"


def test_a_cluster_without_a_head_is_a_fault_and_what_needs_the_head_is_left_out(tmp_path: Path) -> None:
    head = free_address()
    status, found = doctor("--run_folder", str(tmp_path / "run"), "--ray.address", head, "--listen.address", "node:9900")
    assert status == 1
    assert found["listen.address"]["level"] == "skipped"
    assert "looked at by a start" in found["listen.address"]["found"]
    assert found["Ray cluster"]["level"] == "fault"
    assert f"expected a Ray cluster's head at {head}, received UNAVAILABLE" in found["Ray cluster"]["found"]
    assert [found[name]["level"] for name in ("Ray token", "Ray node", "Ray room")] == ["skipped"] * 3


def test_what_has_a_port_or_the_run_folder_is_to_be_ended_by_a_command_that_names_its_run_folder(tmp_path: Path) -> None:
    from policyserver.common.settings import load
    from policyserver.server.config.server_config import ServerConfig
    from policyserver.server.doctor.configuration import checks

    config = load(ServerConfig, None, {"run_folder": str(tmp_path / "mine"), "policies.load": {"champion": 1}})
    advice = {check.name: check.advice for check in checks(config, None)}
    assert "`policy-server ctl drain --run_folder DIR`" in advice["listen.address"]
    assert f"`policy-server ctl drain --run_folder {tmp_path}/mine`" in advice["run folder"]
    assert f"`policy-server ctl checkpoints --run_folder {tmp_path}/mine`" in advice["policies.load.champion"]


@pytest.mark.parametrize(
    ("token", "database", "said"),
    [
        ("right", "rl", "answers for the database rl"),
        ("wrong", "rl", "401, it wants a token or another one"),
        ("right", "other", "its data source asks the database 'other', and points go to the bucket 'rl/autogen'"),
    ],
)
def test_a_data_source_of_grafana(token: str, database: str, said: str, grafana: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from policyserver.server.config.server_config import ServerConfig
    from policyserver.server.doctor.services import checks

    monkeypatch.setattr(GrafanaDouble, "DATA_SOURCE", {"url": "http://influxdb:8086", "jsonData": {"dbName": database}})
    monkeypatch.setenv("INFLUXDB_V2_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("INFLUXDB_V2_BUCKET", "rl/autogen")
    away, found = (carry_out(check) for check in checks(ServerConfig(), grafana, token))
    assert (away.level, "Connection refused" in away.found) == ("warning", True)
    assert (found.level, said in found.found) == ("ok" if said.startswith("answers") else "warning", True), found
    closed = carry_out(checks(ServerConfig(), "http://127.0.0.1:1", token)[1])
    assert (closed.level, "Connection refused" in closed.found) == ("warning", True)
    if found.level == "ok":
        monkeypatch.setattr(GrafanaDouble, "FAILURE", "error reading InfluxDB. Status Code: 401")
        failing = carry_out(checks(ServerConfig(), grafana, token)[1])
        assert (failing.level, "400, error reading InfluxDB. Status Code: 401" in failing.found) == ("warning", True), failing
    no_url = carry_out(checks(ServerConfig(), "127.0.0.1:3000", token)[1])
    assert (no_url.level, "expected http://host:port" in no_url.found) == ("warning", True)


_FOLDERS = """
import sys
from pathlib import Path
from policyserver.common.settings import load
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.doctor.check import carry_out
from policyserver.server.doctor.configuration import checks
for folder in sys.argv[1:]:
    config = load(ServerConfig, None, {"run_folder": folder})
    for check in checks(config, None):
        if check.name in ("run_folder", "space for run_folder"):
            print(check.name, "|", carry_out(check))
"""


@pytest.mark.process
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare lets a test mount file systems")
def test_a_full_and_a_read_only_file_system(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("this user may not mount file systems")
    full, closed = tmp_path / "full", tmp_path / "closed"
    full.mkdir()
    closed.mkdir()
    mount = f"mount -t tmpfs -o size=64k none {full} && mount -t tmpfs -o ro none {closed} && exec {sys.executable} - {full} {closed}"
    ended = subprocess.run(["unshare", "-m", "sh", "-c", mount], input=_FOLDERS, capture_output=True, text=True, check=True, timeout=110)
    lines = ended.stdout.splitlines()
    assert "level='ok'" in lines[0]
    assert "level='fault'" in lines[1]
    assert "expected at least 16.0 MiB" in lines[1]
    assert f"{closed} can't be written" in lines[2]
    assert "level='fault'" in lines[2]


def test_what_hangs_is_left_after_its_time_and_a_warning_that_is_logged_is_a_doubt() -> None:
    ends = threading.Event()

    def hangs() -> str:
        ends.wait(30.0)
        return ""

    def logs() -> str:
        logging.getLogger("policyserver.server").warning("others can write %s", "it")
        return "fine"

    def doubts() -> str:
        raise DoubtError("one or the other")

    found = carry_out(Check("hangs", hangs, "wait", timeout_s=0.05))
    ends.set()
    assert (found.level, found.found, found.advice) == ("warning", "no result within 0.05 s", "wait")
    assert (carry_out(Check("logs", logs, "")).level, carry_out(Check("logs", logs, "")).found) == ("warning", "others can write it")
    assert carry_out(Check("doubts", doubts, "look")).advice == "look"
    assert carry_out(Check("fine", lambda: "fine", "look")).advice == ""
