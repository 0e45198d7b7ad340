"""The three commands. Each checks first that all five folders of `policyserver` are installed.

One is missing if sources were replaced without installing them again: an old installation, or a file of one, then hides it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
from typing import NoReturn

_PARTS = ("policyserver.client", "policyserver.monitoring", "policyserver.pipelines", "policyserver.server", "policyserver.v1")

_EXTRA_OF = {
    **dict.fromkeys(("ray", "torch", "gymnasium", "grpc_health", "grpc_reflection"), "server"),
    **dict.fromkeys(("prometheus_client", "starlette", "uvicorn"), "server"),
    **dict.fromkeys(("river", "pyarrow", "exchange_calendars"), "pipelines"),
    "influxdb_client": "influx",
    "onnx": "onnx",
}
"""The extra that brings a package, for an installation of the client alone has all three commands."""


def _run(command: str, module: str, function: str) -> NoReturn:
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # read when gRPC is imported; its handlers of a fork can hang beside a server
    if problem := _what_is_missing():
        sys.exit(f"{command}: {problem}")
    try:
        sys.exit(getattr(importlib.import_module(module), function)())
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA_OF:
            raise
        extra = _EXTRA_OF[package]
        sys.exit(f'{command}: expected the package {package} to be installed, received none: `pip install ".[{extra}]"` brings it')


policy_server = functools.partial(_run, "policy-server", "policyserver.server.__main__", "program")
policy_pipeline = functools.partial(_run, "policy-pipeline", "policyserver.pipelines.__main__", "main")
policy_monitor = functools.partial(_run, "policy-monitor", "policyserver.monitoring.__main__", "main")


def _what_is_missing() -> str:
    """Say which parts of `policyserver` are not found, why, and what to do; nothing where all are."""
    missing = ", ".join(part for part in _PARTS if not _is_found(part))
    if not missing:
        return ""
    namespace = importlib.import_module("policyserver")
    if namespace.__file__:
        return f"{namespace.__file__} hides {missing}: delete this file, which an older version left behind"
    found = ", ".join(namespace.__path__)
    return f"expected {missing} to be installed, received only {found}: an older version is installed here; run `pip install` again"


def _is_found(part: str) -> bool:
    spec = importlib.util.find_spec(part)
    return spec is not None and spec.origin is not None
