"""Programs that some tests run beside them, taken from the machine; `.ci/install-services` installs them all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.ports import free_ports, listens

_INFLUX_CONFIG = """\
bind-address = "127.0.0.1:{rpc_port}"
reporting-disabled = true
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  index-version = "tsi1"
  query-log-enabled = false
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
  auth-enabled = {with_password}
[logging]
  level = "error"
"""

NGINX_HEAD = """
worker_processes 1;
master_process off;
daemon off;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
"""
"""Begins the configuration of an nginx that writes to its own folder alone; what it serves and the end of `http` follow."""

# InfluxDB 1.6 knows neither /api/v2/write nor the precisions "ns" and "us" (it reads both as nanoseconds), and refuses an authorization
# "Token user:password": this maps one onto the other.
_BRIDGE_CONFIG = (
    NGINX_HEAD
    + r"""  client_max_body_size 25m;
  client_body_buffer_size 4m;
  map $http_authorization $authorization {{ default $http_authorization; "~*^Token" ""; }}
  map $http_authorization $credentials {{ default ""; "~*^Token\s+(?<user>[^:]+):(?<password>.*)$" "&u=$user&p=$password"; }}
  map $arg_bucket $database {{ default $arg_bucket; "~^(?<before>[^/%]+)(/|%2F)" $before; }}
  map $arg_bucket $retention {{ default ""; "~(/|%2F)(?<behind>.+)$" $behind; }}
  map $arg_precision $precision {{ default n; us u; u u; ms ms; s s; }}
  upstream influxdb {{ server 127.0.0.1:{influx_port}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{port}{tls};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Authorization $authorization;
    location = /api/v2/write {{ proxy_pass http://influxdb/write?db=$database&rp=$retention&precision=$precision$credentials; }}
    location /api/ {{ return 404; }}
    location / {{ proxy_pass http://influxdb; }}
  }}
}}
"""
)

_BRIDGE_TLS = """ ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_client_certificate {certificate};
    ssl_verify_client on"""


MissingService = Callable[[str], NoReturn]
"""The fixture `missing_service`: skips the test, or fails it where services are required."""


def program(name: str, missing_service: MissingService) -> str:
    """Find a program of the machine."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    return found or missing_service(f"{name} is not installed; .ci/install-services installs it")


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 90.0) -> Any:
    """Wait for what another program does, and return the condition's first true value.

    The longer it takes, the less often is looked: many looks cost as much of the processor as what is waited for.
    """
    began = time.monotonic()
    while not (value := condition()):
        waited_s = time.monotonic() - began
        if waited_s > timeout_s:
            pytest.fail(f"waited {waited_s:.0f} s for {what}")
        time.sleep(min(max(waited_s / 20, 0.02), 0.25))
    return value


class InfluxServer:
    """A real InfluxDB 1.6 that takes v2 writes at `url`. Its data outlives `kill` and `start`."""

    bucket = "rl"

    def __init__(
        self,
        folder: Path,
        missing_service: MissingService,
        credentials: tuple[str, str] | None = None,
        certificate_and_key: tuple[Path, Path] | None = None,
    ) -> None:
        """Find the programs; nothing runs yet.

        Args:
            folder: where its data lies.
            missing_service: called where a program is missing.
            credentials: user and password that it asks for.
            certificate_and_key: the bridge's, which then speaks TLS and asks its clients for the same certificate.
        """
        self._influxd, self._nginx = program("influxd", missing_service), program("nginx", missing_service)
        self._folder = folder
        self._influx_port, self._rpc_port, self._port = free_ports(3)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._credentials = dict(zip("up", credentials, strict=True)) if credentials else {}
        self._tls = ""
        if certificate_and_key is not None:
            certificate, key = certificate_and_key
            self._tls = _BRIDGE_TLS.format(certificate=certificate, key=key)
        self.url = f"http{'s' if self._tls else ''}://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Run database and bridge until they answer, and make the bucket."""
        self._folder.mkdir(parents=True, exist_ok=True)
        config, bridge = self._folder / "influxd.conf", self._folder / "nginx.conf"
        settings = {"folder": self._folder, "with_password": str(bool(self._credentials)).lower()}
        config.write_text(_INFLUX_CONFIG.format(**settings, port=self._influx_port, rpc_port=self._rpc_port))
        bridge.write_text(_BRIDGE_CONFIG.format(influx_port=self._influx_port, port=self._port, tls=self._tls))
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._processes.append(subprocess.Popen([self._influxd, "-config", str(config)], **quiet))
        wait_until(self._answers_at(self._influx_port), "InfluxDB to answer")
        assert listens(self._processes[-1].pid, self._influx_port), "another InfluxDB answers there"
        self._processes.append(subprocess.Popen([self._nginx, "-p", str(self._folder), "-c", str(bridge), "-e", "stderr"], **quiet))
        bridge_id = self._processes[-1].pid
        wait_until(lambda: listens(bridge_id, self._port), "the bridge to listen")
        if self._credentials:
            self.query("CREATE USER \"{u}\" WITH PASSWORD '{p}' WITH ALL PRIVILEGES".format(**self._credentials))
        self.query(f'CREATE DATABASE "{self.bucket}"')

    def kill(self) -> None:
        """Kill database and bridge as a crash would."""
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
        self._processes.clear()

    def query(self, influxql: str) -> list[dict[str, Any]]:
        """Execute InfluxQL; the rows of all series, each a dictionary of its columns and tags."""
        body = urllib.parse.urlencode({"db": self.bucket, "q": influxql, "epoch": "ns"}).encode()
        url = f"http://127.0.0.1:{self._influx_port}/query?{urllib.parse.urlencode(self._credentials)}"
        with urllib.request.urlopen(url, data=body, timeout=120.0) as response:
            (result,) = json.load(response)["results"]
        if "error" in result:
            raise AssertionError(f"{influxql}: {result['error']}")
        return [
            dict(zip(series["columns"], row, strict=True)) | series.get("tags", {})
            for series in result.get("series", ())
            for row in series["values"]
        ]

    def _answers_at(self, port: int) -> Callable[[], bool]:
        def answers() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=20.0) as response:
                    return bool(response.status == 204)
            except OSError:
                return False

        return answers
