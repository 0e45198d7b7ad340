"""Reads influxdb-client's settings, from its variables or its configuration file. Each is obeyed, refused, or ignored with a warning."""

from __future__ import annotations

import configparser
import difflib
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T", int, float)

logger = logging.getLogger(__name__)

PREFIX = "INFLUXDB_V2_"
"""What influxdb-client's variables begin with."""

_SECTION, _TAGS_SECTION = "influx2", "tags"
_TAG = "TAG_"

_TRUTHS = dict.fromkeys(("1", "true", "yes", "y", "on"), True) | dict.fromkeys(("0", "false", "no", "n", "off"), False)

_FIELDS = {
    "URL": "url",
    "BUCKET": "bucket",
    "ORG": "org",
    "TOKEN": "token",
    "TIMEOUT": "request_timeout_s",
    "VERIFY_SSL": "verify_tls",
    "SSL_CA_CERT": "ca_file",
    "CERT_FILE": "client_certificate_file",
    "CERT_KEY_FILE": "client_key_file",
    "CERT_KEY_PASSWORD": "client_key_password",
    "CONNECTION_POOL_MAXSIZE": "connection_pool_maxsize",
    "AUTH_BASIC": "basic_authentication",
    "PROFILERS": "profilers",
    "PROXY": "proxy",
    "ENABLE_GZIP": "gzip",
}
"""The field of `InfluxConfig` that each setting becomes. All settings but BUCKET are influxdb-client's."""


def from_environment(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Read the variables into fields of `InfluxConfig`; None without an address, ValueError if one is missing or wrong."""
    given = {name.removeprefix(PREFIX): value.strip("\r\n") for name, value in environment.items() if name.startswith(PREFIX)}
    tags = {name.removeprefix(_TAG).lower(): value for name, value in given.items() if name.startswith(_TAG)}
    values = {name: value for name, value in given.items() if value and not name.startswith(_TAG)}
    if "URL" not in values:
        if values:
            found = ", ".join(PREFIX + name for name in sorted(values))
            logger.warning("InfluxDB is left out: %sURL is not set, though %s is", PREFIX, found)
        return None
    for name in sorted(values.keys() - _FIELDS.keys()):  # perhaps another program's, which is no reason to refuse the rest
        logger.warning("%s%s is ignored, because there is no such variable; %s", PREFIX, name, _hint(name, PREFIX))
    return _fields({name: value for name, value in values.items() if name in _FIELDS}, PREFIX) | {"tags": tags}


def from_file(path: Path) -> dict[str, Any]:
    """Read section [influx2] and the tags of [tags] into fields of `InfluxConfig`; see `InfluxConfig.from_file`."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"), str(path))
        section = parser[_SECTION]
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        # The parser's message quotes the wrong line, which may be the token's.
        reason = error.strerror if isinstance(error, OSError) else "it is no INI file in UTF-8"
        raise ValueError(f"{path}: expected a configuration file of influxdb-client: {reason}") from None
    except KeyError:
        raise ValueError(f"{path}: expected a section [{_SECTION}], received {', '.join(parser.sections()) or 'none'}") from None
    values = {name.upper(): value.strip("\"'") for name, value in section.items()}
    for name in values:
        if name not in _FIELDS:
            raise ValueError(f"{path}: {_shown(name)}: unknown key of [{_SECTION}]; {_hint(name, '')}")
    tags = parser[_TAGS_SECTION] if parser.has_section(_TAGS_SECTION) else {}
    fields = _fields({name: value for name, value in values.items() if value}, f"{path}: ")
    return fields | {"tags": {name: _tag_value(value, f"{path}: [{_TAGS_SECTION}] {name}") for name, value in tags.items()}}


def _fields(values: Mapping[str, str], source: str) -> dict[str, Any]:
    """Turn texts under influxdb-client's names into fields; an error puts `source` before a name."""
    for name, meaning in (("URL", "the address of the server"), ("BUCKET", "the bucket to write to")):
        if name not in values:
            raise ValueError(f"{source}{name}: expected {meaning}; it is not set")
    return {_FIELDS[name]: _converted(name, text, source) for name, text in values.items()}


def _converted(name: str, text: str, source: str) -> Any:
    """Convert the text of one setting to the value of its field."""
    match name:
        case "TIMEOUT":
            return _number(float, text, f"{source}{name}: expected milliseconds") / 1000.0
        case "CONNECTION_POOL_MAXSIZE":
            return _number(int, text, f"{source}{name}: expected a whole number of connections")
        case "VERIFY_SSL" | "AUTH_BASIC" | "ENABLE_GZIP":
            if text.strip().lower() not in _TRUTHS:
                raise ValueError(f"{source}{name}: expected true or false, received {text!r}")
            return _TRUTHS[text.strip().lower()]
        case "SSL_CA_CERT" | "CERT_FILE" | "CERT_KEY_FILE":
            return Path(text)
        case "PROFILERS":
            return tuple(each.strip() for each in text.split(","))
        case _:
            return text


def _number(kind: Callable[[str], T], text: str, expected: str) -> T:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{expected}, received {text!r}") from None


def _tag_value(text: str, source: str) -> str:
    """Return the value of a tag, or of the variable that it names as influxdb-client's files do: `${env.NAME}`."""
    text = text.strip("\"'")
    variable = re.fullmatch(r"\$\{env\.(.+)\}", text)
    if variable is None:
        return text
    if not (value := os.environ.get(variable[1], "")):
        raise ValueError(f"{source}: expected the variable {variable[1]} to be set, which this tag names")
    return value


def _shown(name: str) -> str:
    """Return the name of an unknown key, unless it looks like the end of a token that a line break split."""
    return name.lower() if re.fullmatch(r"[A-Z_]{1,32}", name) else "a key that is no word"


def _hint(name: str, prefix: str) -> str:
    """Return what the user may have meant."""
    near = difflib.get_close_matches(name, _FIELDS, n=1)
    shown = [f"{prefix}{each}" if prefix else each.lower() for each in near or _FIELDS]
    return f"did you mean {shown[0]}?" if near else f"known are {', '.join(shown)}"
