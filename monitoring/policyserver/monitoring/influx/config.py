"""Where InfluxDB is, and how its sink behaves. Imports no influxdb-client, which need not be installed where there is no such sink."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote, urlsplit

from annotated_types import Ge, Gt

from policyserver.common.settings import Config, from_table
from policyserver.monitoring.influx import settings_file as influx_settings
from policyserver.monitoring.line_protocol import tag_suffix

if TYPE_CHECKING:
    from influxdb_client import InfluxDBClient


MOST_PLACE_CHARACTERS = 64
"""Of a bucket's name among the places where points go, at the end of which it differs from others."""


@dataclass(frozen=True)
class InfluxConfig(Config):
    """Where InfluxDB is, and how its sink behaves."""

    url: str
    """Address of the server, http://host:port."""
    bucket: str
    """Bucket to write to; for InfluxDB 1.8 "database/retention-policy", for 3 the database."""
    spool_folder: Path
    """Folder of the spools and of the dead-letter file. Processes that share it adopt the spools of those that died."""
    org: str = "-"
    """Organisation; only InfluxDB 2 has organisations."""
    token: str = field(default="", repr=False)
    """Token; for InfluxDB 1.8 "user:password"."""
    request_timeout_s: Annotated[float, Gt(0)] = 5.0
    """Longest time a request may take, seconds."""
    verify_tls: bool = True
    """Whether the server's certificate is checked."""
    ca_file: Path | None = None
    """Certificates to check it against, PEM. Unset: the system's."""
    client_certificate_file: Path | None = None
    """Certificate of this client, for a server that asks for one, PEM."""
    client_key_file: Path | None = None
    """Key of that certificate, PEM. Unset: it is in the certificate's file."""
    client_key_password: str | None = field(default=None, repr=False)
    """Password of the key. Unset: the key isn't encrypted."""
    basic_authentication: bool = False
    """Send a token "user:password" as HTTP basic authentication."""
    gzip: bool = False
    """Compress requests; that pays only on a slow network."""
    proxy: str | None = field(default=None, repr=False)
    """HTTP proxy, http://host:port or http://user:password@host:port. Unset: no proxy."""
    connection_pool_maxsize: Annotated[int, Ge(1)] | None = None
    """Connections that the client keeps open; a sink needs one. Unset: influxdb-client's choice."""
    profilers: tuple[str, ...] = ()
    """Flux profilers of the client, for your own queries."""
    tags: dict[str, str] = field(default_factory=dict)
    """Further tags of every point, other than its own."""
    max_spool_bytes: Annotated[int, Ge(1)] = 1 << 30
    """Undelivered bytes that a process's spool holds; further points are dropped and counted."""
    max_dead_letter_bytes: Annotated[int, Ge(1)] = 1 << 28
    """Size from which the dead-letter file takes no more lines, bytes; further refused points are only counted."""
    segment_bytes: Annotated[int, Ge(1)] = 1 << 26
    """Size from which the spool begins a new file, bytes."""
    request_bytes: Annotated[int, Ge(1)] = 1 << 20
    """Size of one request, bytes of line protocol."""
    gather_s: Annotated[float, Gt(0)] = 0.25
    """Time for which points gather before they are sent together, seconds."""
    retry_min_s: Annotated[float, Gt(0)] = 0.25
    """First pause after a failure, seconds; each further one is twice as long."""
    retry_max_s: Annotated[float, Gt(0)] = 15.0
    """Longest pause, seconds."""
    adopt_interval_s: Annotated[float, Gt(0)] = 30.0
    """Time between looks for spools of processes that died, seconds."""
    exit_timeout_s: Annotated[float, Gt(0)] = 5.0
    """Time for delivery when the interpreter exits without `close`, seconds."""

    def _check(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            raise ValueError(f"url: expected http://host:port or https://host:port, received {self.url.rpartition('@')[2]!r}")
        if "@" in urlsplit(self.url).netloc:
            raise ValueError(f"url: expected no user and password in it, received some before {self.location}; set token instead")
        if not self.token.isprintable() or self.token != self.token.strip():
            raise ValueError("token: expected printable characters without spaces around them, received others; it is not shown here")
        if self.proxy is not None and (urlsplit(self.proxy).scheme not in ("http", "https") or not urlsplit(self.proxy).hostname):
            raise ValueError(f"proxy: expected http://host:port, received {self.proxy.rpartition('@')[2]!r}")
        tag_suffix(self.tags)
        if not self.bucket:
            raise ValueError("bucket: expected a bucket's name, received ''")

    @classmethod
    def from_environment(cls, spool_folder: Path, environment: Mapping[str, str] = os.environ) -> InfluxConfig | None:
        """Read influxdb-client's variables (`INFLUXDB_V2_URL`, `_ORG`, `_TOKEN`, ...) and `INFLUXDB_V2_BUCKET`; None without a URL.

        Raises:
            ValueError: A variable is missing or wrong.
        """
        fields = influx_settings.from_environment(environment)
        return None if fields is None else from_table(cls, {"spool_folder": spool_folder, **fields}, "the environment")

    @classmethod
    def from_file(cls, path: Path, spool_folder: Path) -> InfluxConfig:
        """Read influxdb-client's configuration file: `[influx2]` with `url`, `org`, `token`, `timeout`, ... and our `bucket`, and `[tags]`.

        Raises:
            ValueError: The file can't be read, or a key in it is missing, unknown or wrong.
        """
        return from_table(cls, {"spool_folder": spool_folder, **influx_settings.from_file(path)}, str(path))

    @classmethod
    def for_client(cls, client: InfluxDBClient, bucket: str, spool_folder: Path) -> InfluxConfig:
        """Make the settings that go with your own client; `dataclasses.replace` changes the others.

        Raises:
            ValueError: The client's address or the bucket can't be used.
        """
        return cls(url=client.url, bucket=bucket, spool_folder=spool_folder, org=client.org or "-")

    @property
    def proxy_parts(self) -> tuple[str | None, str]:
        """The proxy's address without credentials, and the credentials as "user:password"; None and "" without a proxy."""
        if self.proxy is None:
            return None, ""
        credentials, _, place = urlsplit(self.proxy).netloc.rpartition("@")
        return f"{urlsplit(self.proxy).scheme}://{place}", unquote(credentials)

    @property
    def location(self) -> str:
        """The server's address without credentials, for logs."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def place(self) -> str:
        """Name of the bucket, the same for all that write to it."""
        return f"{self.location}/{self.bucket}"[-MOST_PLACE_CHARACTERS:]

    @property
    def dead_letter_file(self) -> Path:
        """File of the lines that the database refused, each below a comment that says why."""
        return self.spool_folder / "dead.lp"
