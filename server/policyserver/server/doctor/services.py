"""What the doctor looks at beyond the machine: InfluxDB, and Grafana's data source."""

from __future__ import annotations

import base64
import email.utils
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

from policyserver.monitoring.influx.config import InfluxConfig
from policyserver.monitoring.recording import influx_config
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.doctor.check import Check, DoubtError, SkippedError

DATA_SOURCE = "influxdb"
"""Identity of the data source that the dashboards ask, see deploy/grafana/provisioning."""
_TIMEOUT_S = 5.0
_MOST_BYTES = 2**20
_MOST_TEXT = 200
_MOST_APART_S = 2.0
"""Clocks further apart put points at times where no one looks for them."""


def checks(config: ServerConfig, grafana: str | None, grafana_token: str) -> list[Check]:
    """List what to look at."""
    away = "start it, or correct the variables INFLUXDB_V2_* or recording.influx_file; until then points wait on disk"
    grafana_advice = "see deploy/grafana/provisioning/datasources; GRAFANA_TOKEN is a token of a service account that may view"
    return [
        Check("InfluxDB", partial(_influx, config), away, 30.0, ("recording",)),
        Check("Grafana", partial(_grafana, config, grafana, grafana_token), grafana_advice, 30.0, ("recording",)),
    ]


def _influx_of(config: ServerConfig) -> InfluxConfig | None:
    """Read where InfluxDB is. What is wrong with that is a fault of the recording, and there looked at."""
    try:
        return influx_config(config.recording, Path()) if config.recording.enabled else None
    except ValueError as error:
        raise SkippedError("its settings can't be read, see recording") from error


def _influx(config: ServerConfig) -> str:
    """Write nothing to the database, in a request as the sink's own."""
    influx = _influx_of(config)
    if influx is None:
        raise SkippedError("not configured: no INFLUXDB_V2_URL and no recording.influx_file, or it is left out")
    from policyserver.monitoring.influx.request import Verdict, probe  # whose influxdb-client is optional

    answer, answered_at = probe(influx)
    if answer.verdict is Verdict.UNKNOWN:
        raise DoubtError(f"{influx.location} does not take points for the bucket {influx.bucket}: {answer.text}")
    _compare_clocks(answered_at, influx.location)
    return f"{influx.location} takes points for the bucket {influx.bucket}"


def _grafana(config: ServerConfig, url: str | None, token: str) -> str:
    if url is None:
        raise SkippedError("not asked for: --grafana URL, or GRAFANA_URL")
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DoubtError(f"--grafana: expected http://host:port or https://host:port, received {parts.netloc.rpartition('@')[2]!r}")
    credentials, _, place = parts.netloc.rpartition("@")
    base = f"{parts.scheme}://{place}{parts.path.rstrip('/')}"
    headers = {}
    if token or credentials:
        basic = base64.b64encode(urllib.parse.unquote(credentials).encode()).decode()
        headers["Authorization"] = f"Bearer {token}" if token else f"Basic {basic}"
    health, answered_at = _ask(f"{base}/api/health", {}, "expected Grafana, received something else")
    if "database" not in health:
        raise DoubtError(f"{base}: expected Grafana, received something else")
    _compare_clocks(answered_at, base)
    source, _ = _ask(f"{base}/api/datasources/uid/{DATA_SOURCE}", headers)
    told = source.get("jsonData", {}).get("dbName") or source.get("database") or ""
    influx = _influx_of(config)
    if influx is not None and told != influx.bucket.partition("/")[0]:
        raise DoubtError(f"{base}: its data source asks the database {told!r}, and points go to the bucket {influx.bucket!r}")
    tested, _ = _ask(f"{base}/api/datasources/uid/{DATA_SOURCE}/health", headers)
    if tested.get("status") != "OK":
        raise DoubtError(f"{base}: its data source at {source.get('url')} fails: {tested.get('message')}")
    return f"{base}: its data source at {source.get('url')} answers for the database {told}"


def _ask(url: str, headers: dict[str, str], missing: str = "it has no such data source") -> tuple[dict[str, Any], str]:
    """Return an answer in JSON, and when it came by the clock of what gave it.

    Args:
        url: What to ask for.
        headers: What to send.
        missing: What it means that there is no such thing.
    """
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S) as answer:
            found = json.loads(answer.read(_MOST_BYTES))
            return found if isinstance(found, dict) else {}, answer.headers.get("Date") or ""
    except urllib.error.HTTPError as error:
        why = {401: "it wants a token or another one", 403: "the token may not see it", 404: missing}.get(error.code)
        why = why or _message_of(error) or error.reason
        raise DoubtError(f"{url}: {error.code}, {why}") from error
    except OSError as error:
        raise DoubtError(f"{url}: {getattr(error, 'reason', None) or error}") from error
    except ValueError as error:
        raise DoubtError(f"{url}: {missing}: no JSON") from error


def _message_of(error: urllib.error.HTTPError) -> str:
    """Return what the body of a refusal says: a data source that fails is a 400 to Grafana, and its reason is in the body."""
    try:
        return str(json.loads(error.read(_MOST_BYTES))["message"])[:_MOST_TEXT]
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _compare_clocks(answered_at: str, place: str) -> None:
    """Compare this machine's clock with that of an answer which has just come."""
    if not answered_at:
        return
    apart_s = time.time() - email.utils.parsedate_to_datetime(answered_at).timestamp()
    if not -_MOST_APART_S < apart_s < _MOST_APART_S + 1.0:  # the answer's is cut to whole seconds
        raise DoubtError(f"{place}: its clock and this machine's are {abs(apart_s):.0f} s apart; synchronize both")
