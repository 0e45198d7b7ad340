"""Where InfluxDB is, and how its sink behaves. Needs no influxdb-client, so that it can be asked whether there is to be one."""

from __future__ import annotations

import configparser
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from influxdb_client import InfluxDBClient

logger = logging.getLogger(__name__)


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
    client_certificate_file: Path | None = None
    """Certificate that this side shows to a server that asks for one, PEM."""
    client_key_file: Path | None = None
    """Its key, PEM. Unset: it is in the certificate's file."""
    client_key_password: str | None = field(default=None, repr=False)
    """What the key is encrypted with. Unset: it is not."""
    basic_authentication: bool = False
    """Send a token "user:password" as HTTP basic authentication."""
    gzip: bool = False
    """Compress requests; pays only over a slow network."""
    max_spool_bytes: int = 1 << 30
    """Bytes one process's spool may hold undelivered; further points are dropped and counted."""
    max_dead_letter_bytes: int = 1 << 28
    """Size from which the dead-letter file takes no more lines, bytes; further refused points are counted alone."""
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
            raise ValueError(f"url: expected http://host:port or https://host:port, received {self.url.rpartition('@')[2]!r}")
        if "@" in urlsplit(self.url).netloc:
            raise ValueError(f"url: expected no user and password in it, received some before {self.location}; set token instead")
        if not self.bucket:
            raise ValueError("bucket: expected a bucket's name, received ''")
        for name in ("max_spool_bytes", "max_dead_letter_bytes", "segment_bytes", "request_bytes"):
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
        prefix = "INFLUXDB_V2_"
        values = {name.removeprefix(prefix): value for name, value in environment.items() if name.startswith(prefix) and value}
        if values and "URL" not in values:
            found = ", ".join(prefix + name for name in sorted(values))
            logger.warning("InfluxDB is left out: INFLUXDB_V2_URL is not set, though %s is", found)
        return cls._from_values(values, prefix, spool_folder) if "URL" in values else None

    @classmethod
    def from_file(cls, path: Path, spool_folder: Path) -> InfluxConfig:
        """Read influxdb-client's configuration file: section `[influx2]` with `url`, `org`, `token`, `timeout`, ... and our `bucket`.

        Raises:
            ValueError: the file cannot be read, or a value in it is missing or wrong.
        """
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(path.read_text(encoding="utf-8"), str(path))
            section = parser["influx2"]
        except (OSError, UnicodeDecodeError, configparser.Error) as error:
            # The parser's message quotes the line at fault, which may be the token's.
            reason = error.strerror if isinstance(error, OSError) else "it is no INI file in UTF-8"
            raise ValueError(f"{path}: expected a configuration file of influxdb-client: {reason}") from None
        except KeyError:
            raise ValueError(f"{path}: expected a section [influx2], found {', '.join(parser.sections()) or 'none'}") from None
        values = {name.upper(): value.strip("\"'") for name, value in section.items()}
        return cls._from_values({name: value for name, value in values.items() if value}, f"{path}: ", spool_folder)

    @classmethod
    def for_client(cls, client: InfluxDBClient, bucket: str, spool_folder: Path) -> InfluxConfig:
        """Make the settings that go with a client of your own; `dataclasses.replace` changes the others.

        Raises:
            ValueError: the client's address or the bucket cannot be used.
        """
        return cls(url=client.url, bucket=bucket, spool_folder=spool_folder, org=client.org or "-")

    @classmethod
    def _from_values(cls, values: Mapping[str, str], source: str, spool_folder: Path) -> InfluxConfig:
        """Make settings of texts under influxdb-client's names; `source` is what an error puts before a name."""
        for name, meaning in (("URL", "the address of the server"), ("BUCKET", "the bucket to write to")):
            if name not in values:
                raise ValueError(f"{source}{name}: expected {meaning}; it is not set")
        try:
            timeout_s = float(values.get("TIMEOUT", "5000")) / 1000.0
        except ValueError:
            raise ValueError(f"{source}TIMEOUT: expected milliseconds, received {values['TIMEOUT']!r}") from None
        files = {name: Path(values[name]) if name in values else None for name in ("SSL_CA_CERT", "CERT_FILE", "CERT_KEY_FILE")}
        return cls(
            url=values["URL"],
            bucket=values["BUCKET"],
            spool_folder=spool_folder,
            org=values.get("ORG", "-"),
            token=values.get("TOKEN", ""),
            request_timeout_s=timeout_s,
            verify_tls=_is_true(values.get("VERIFY_SSL", "true")),
            ca_file=files["SSL_CA_CERT"],
            client_certificate_file=files["CERT_FILE"],
            client_key_file=files["CERT_KEY_FILE"],
            client_key_password=values.get("CERT_KEY_PASSWORD"),
            basic_authentication=_is_true(values.get("AUTH_BASIC", "false")),
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
