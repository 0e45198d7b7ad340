"""Where InfluxDB is, and how its sink behaves. Needs no influxdb-client, so that it can be asked whether there is to be one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True)
class InfluxConfig:
    """Where InfluxDB is, and how its sink behaves."""

    url: str
    """Address of the server, http://host:port."""
    bucket: str
    """Bucket to write to; for InfluxDB 1.8 "database/retention-policy", for 3 the database."""
    spool_folder: Path
    """Folder of the spools and of the dead-letter file; processes that share it adopt each other's spools."""
    org: str = "-"
    """Organisation; only InfluxDB 2 has any."""
    token: str = field(default="", repr=False)
    """Token; for InfluxDB 1.8 "user:password"."""
    request_timeout_s: float = 5.0
    """Longest time a request may take, seconds."""
    verify_tls: bool = True
    """Whether the server's certificate is checked."""
    ca_file: Path | None = None
    """Certificates to check it against, PEM. Unset: the system's."""
    basic_authentication: bool = False
    """Send a token "user:password" as HTTP basic authentication."""
    gzip: bool = False
    """Compress requests; pays only over a slow network."""
    max_spool_bytes: int = 1 << 30
    """Bytes one process's spool may hold undelivered; further points are dropped and counted."""
    segment_bytes: int = 1 << 26
    """Size from which a new file of the spool is begun, bytes."""
    request_bytes: int = 1 << 20
    """Size of one request, bytes of line protocol."""
    gather_s: float = 0.25
    """Time in which points gather before they are sent together, seconds."""
    retry_min_s: float = 0.25
    """First pause after a failure, seconds; each further one is twice as long."""
    retry_max_s: float = 15.0
    """Longest pause, seconds."""
    adopt_interval_s: float = 30.0
    """Time between looks for spools whose processes died, seconds."""
    exit_timeout_s: float = 5.0
    """Time for delivery when the interpreter exits without `close`, seconds."""

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            raise ValueError(f"url: expected http://host:port or https://host:port, received {self.location!r}")
        if "@" in urlsplit(self.url).netloc:
            raise ValueError(f"url: expected no user and password in it, received some before {self.location}; set token instead")
        if not self.bucket:
            raise ValueError("bucket: expected a bucket's name, received ''")
        for name in ("max_spool_bytes", "segment_bytes", "request_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 byte or more, received {getattr(self, name)}")
        for name in ("request_timeout_s", "gather_s", "retry_min_s", "retry_max_s", "adopt_interval_s", "exit_timeout_s"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name}: expected more than 0 seconds, received {getattr(self, name)}")

    @classmethod
    def from_environment(cls, spool_folder: Path, environment: Mapping[str, str] = os.environ) -> InfluxConfig | None:
        """Read influxdb-client's variables (`INFLUXDB_V2_URL`, `_ORG`, `_TOKEN`, ...) and `INFLUXDB_V2_BUCKET`; None without a URL.

        Raises:
            ValueError: a variable is missing or wrong.
        """
        read = {
            name.removeprefix("INFLUXDB_V2_"): value for name, value in environment.items() if name.startswith("INFLUXDB_V2_") and value
        }
        if "URL" not in read:
            return None
        if "BUCKET" not in read:
            raise ValueError("INFLUXDB_V2_BUCKET: expected the bucket to write to, as INFLUXDB_V2_URL is set; it is not set")
        try:
            timeout_s = float(read.get("TIMEOUT", "5000")) / 1000.0
        except ValueError:
            raise ValueError(f"INFLUXDB_V2_TIMEOUT: expected milliseconds, received {read['TIMEOUT']!r}") from None
        return cls(
            url=read["URL"],
            bucket=read["BUCKET"],
            spool_folder=spool_folder,
            org=read.get("ORG", "-"),
            token=read.get("TOKEN", ""),
            request_timeout_s=timeout_s,
            verify_tls=_is_true(read.get("VERIFY_SSL", "true")),
            ca_file=Path(read["SSL_CA_CERT"]) if "SSL_CA_CERT" in read else None,
            basic_authentication=_is_true(read.get("AUTH_BASIC", "false")),
        )

    @property
    def location(self) -> str:
        """The server's address without credentials, for logs."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def dead_letter_file(self) -> Path:
        """File of the lines that the database refused, each under a comment that says why."""
        return self.spool_folder / "dead.lp"


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("1", "true", "yes", "y")
