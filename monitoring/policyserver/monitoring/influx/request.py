"""One write request to InfluxDB, and what its answer means for the lines that it carried.

Only 204 says that all lines are stored: InfluxDB 1.8, 2 and 3 and VictoriaMetrics then give no other answer. Another success comes from
something else, such as a login page, or from a server that kept a part.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from enum import Enum
from typing import Any

from influxdb_client import InfluxDBClient, WriteService
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError, SSLError
from urllib3.util import make_headers

from policyserver.monitoring.influx.config import InfluxConfig

_STORED = 204

_AWAY = "away"
"""Kind of every trouble that only says that the database can't be reached now."""

_REFUSED = frozenset({400, 413, 422})
"""Answers that blame the lines themselves."""

_PRECISION = "ns"
_CONTENT_TYPE = "text/plain; charset=utf-8"
_MOST_CHARACTERS = 300

_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


class Verdict(Enum):
    """What became of the lines of a request."""

    STORED = "stored"
    REFUSED = "refused"
    """At least one of the lines is wrong."""
    UNKNOWN = "unknown"
    """Send them again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one request."""

    verdict: Verdict
    """What became of the lines."""
    kind: str = ""
    """Tells troubles apart that have different remedies: a status, or the name of an exception."""
    text: str = ""
    """What is wrong, one line without secrets; "" if nothing is."""


def client_of(config: InfluxConfig) -> InfluxDBClient:
    """Make a client; it connects with its first request."""
    proxy, proxy_credentials = config.proxy_parts
    return InfluxDBClient(
        url=config.url,
        token=config.token,
        org=config.org,
        timeout=int(config.request_timeout_s * 1000.0),
        enable_gzip=config.gzip,
        verify_ssl=config.verify_tls,
        ssl_ca_cert=config.ca_file,
        cert_file=config.client_certificate_file,
        cert_key_file=config.client_key_file,
        cert_key_password=config.client_key_password,
        auth_basic=config.basic_authentication,
        connection_pool_maxsize=config.connection_pool_maxsize,
        profilers=list(config.profilers),
        proxy=proxy,
        proxy_headers=make_headers(proxy_basic_auth=proxy_credentials) if proxy_credentials else None,
    )


def longest_request_s(client: InfluxDBClient, config: InfluxConfig) -> float:
    """Return the time after which a client gives a request up, seconds; where it never does, that of the configuration."""
    timeout_ms = client.conf.timeout
    return float(sum(timeout_ms) if isinstance(timeout_ms, tuple) else timeout_ms or 1000.0 * config.request_timeout_s) / 1000.0


class WriteRequests:
    """Sends lines with a client, one request at a time."""

    def __init__(self, client: InfluxDBClient, config: InfluxConfig) -> None:
        """Send to the configuration's bucket and organisation."""
        self._api = client.api_client
        self._service = WriteService(self._api)
        self._config = config
        self._secrets = _secrets(client)
        self.answered_at = ""
        """When the newest answer came by the clock of what gave it, as HTTP writes dates; "" if it did not say."""

    def send(self, data: bytes) -> Answer:
        """Send lines and judge the answer. Never raises."""
        bucket, org = self._config.bucket, self._config.org
        try:
            _, status, headers = self._service.post_write_with_http_info(
                org, bucket, data, precision=_PRECISION, content_type=_CONTENT_TYPE
            )
        except ApiException as error:
            return self._not_stored(error.status, error.reason, error.headers, error.body)
        except Exception as error:  # all that the network, TLS and the client library raise when the database is away
            return Answer(Verdict.UNKNOWN, _kind(error), self._without_secrets(_said(error)))
        if status == _STORED:
            self._note_date(headers)
            return Answer(Verdict.STORED)
        response = self._api.last_response
        return self._not_stored(status, response.reason, headers, response.data)

    def _not_stored(self, status: int, reason: str | None, headers: Any, body: bytes | str | None) -> Answer:
        """Judge an answer that doesn't say that all is stored."""
        self._note_date(headers)
        of_html = "html" in ((headers or {}).get("Content-Type") or "")
        explanation = self._without_secrets(f"{status} {reason or ''} {_text(body, of_html)}".strip())
        # A 400 in HTML comes from a proxy that never asked the database: it expects a client's certificate, or TLS.
        if status in _REFUSED and not (status == 400 and of_html):
            return Answer(Verdict.REFUSED, str(status), explanation)
        if 200 <= status < 300:
            explanation = f"expected the answer 204, received {explanation}; is this InfluxDB's own address?"
        return Answer(Verdict.UNKNOWN, _AWAY if status >= 500 else str(status), explanation)

    def _note_date(self, headers: Any) -> None:
        self.answered_at = (headers or {}).get("Date") or ""

    def _without_secrets(self, text: str) -> str:
        """Replace secrets, which a server may have repeated."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _kind(error: Exception) -> str:
    network = isinstance(error, OSError | HTTPError) and not isinstance(error, ssl.SSLError | SSLError)
    return _AWAY if network else type(error).__name__


def _said(error: Exception) -> str:
    """Describe an exception. Quote only the network's: the text of others may quote headers, and so the token."""
    name = type(error).__name__
    return f"{name}: {_one_line(str(error))}" if isinstance(error, OSError | HTTPError) else f"{name}, whose text may hold a secret"


def _text(body: bytes | str | None, of_html: bool) -> str:
    """Return a server's text in one short line; the title of a page in HTML."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    if not (of_html or text.lstrip().startswith("<")):
        return _one_line(text)
    title = _TITLE.search(text)
    return f"(a page of HTML, {_one_line(title[1])!r})" if title else "(a page of HTML)"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_MOST_CHARACTERS]


def _secrets(client: InfluxDBClient) -> list[str]:
    """List the client's secrets, the longest first."""
    token, conf = client.token or "", client.conf
    headers = [client.auth_header_value or "", *(conf.proxy_headers or {}).values()]
    known = {token, token.partition(":")[2], conf.password, conf.cert_key_password, *(each.partition(" ")[2] for each in headers)}
    return sorted((secret.strip() for secret in known if secret and secret.strip()), key=len, reverse=True)


def probe(config: InfluxConfig) -> tuple[Answer, str]:
    """Ask the database whether it takes points with these settings, by a request of a comment alone, which stores nothing.

    Returns:
        The answer, and when it came by the clock of what gave it, as HTTP writes dates; "" if it did not say.
    """
    client = client_of(config)
    try:
        requests = WriteRequests(client, config)
        return requests.send(b"# policy-server doctor\n"), requests.answered_at
    finally:
        client.close()
