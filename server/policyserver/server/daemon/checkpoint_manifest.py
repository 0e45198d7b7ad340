"""What a checkpoint says of itself: the manifest in its folder, with the size and SHA-256 of every other file, and a sum of its own."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import gymnasium as gym

from policyserver.server.config.rllib_config import SpacesConfig
from policyserver.server.config.space_tables import space_from_config
from policyserver.server.processes.training_report import Progress

MANIFEST = "manifest.json"
_MANIFEST_SUM = "manifest.json.sha256"
_FORMAT_VERSION = 2
_WITHOUT_SUM = 1
"""Format version of manifests that have no sum of their own; still read."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself."""

    progress: Progress
    spaces: dict[str, gym.Space[Any]]
    connectors: dict[str, Any]
    """By dotted key, like `net`."""
    net: dict[str, Any]
    weights_sha256: str
    written_at: str
    size_bytes: int
    lineage: int
    restored_from: int


UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""Errors that reading a damaged manifest may raise."""


def verified_manifest(path: Path) -> Manifest:
    """Read a manifest, compare it with its sum, and every file with it."""
    content = (path / MANIFEST).read_bytes()
    manifest: dict[str, Any] = json.loads(content)
    version = manifest["format_version"]
    if version not in (_WITHOUT_SUM, _FORMAT_VERSION):
        raise ValueError(f"format version {version}, expected {_FORMAT_VERSION}")
    if (version != _WITHOUT_SUM or (path / _MANIFEST_SUM).exists()) and (path / _MANIFEST_SUM).read_bytes() != _sum_line(content).encode():
        raise ValueError(f"{MANIFEST}: its SHA-256 is not that of {_MANIFEST_SUM}")
    present = files_of(path)
    if present.keys() != manifest["files"].keys():
        differing = sorted(present.keys() ^ manifest["files"].keys())
        raise ValueError(f"files missing or not in the manifest: {', '.join(differing)}")
    for name, expected in manifest["files"].items():
        size = present[name].stat().st_size
        if size != expected["bytes"]:
            raise ValueError(f"{name}: expected {expected['bytes']} bytes, received {size}")
        if _sha256(present[name]) != expected["sha256"]:
            raise ValueError(f"{name}: its SHA-256 is not that of the manifest")
    return _read(manifest)


def manifest_of(path: Path) -> Manifest:
    """Read a manifest without a look at what it describes."""
    return _read(json.loads((path / MANIFEST).read_bytes()))


def _read(manifest: dict[str, Any]) -> Manifest:
    return Manifest(
        Progress(**manifest["progress"]),
        spaces={entry.name: space_from_config(manifest["spaces"][entry.name], entry.name) for entry in fields(SpacesConfig)},
        connectors={f"connectors.{name}": value for name, value in manifest.get("connectors", {}).items()},
        net=dict(manifest.get("net", {})),
        weights_sha256=str(manifest.get("weights_sha256", "")),
        written_at=str(manifest["written_at"]),
        size_bytes=sum(file["bytes"] for file in manifest["files"].values()),
        lineage=int(manifest.get("lineage", 0)),
        restored_from=int(manifest.get("restored_from", 0)),
    )


def write_manifest(
    folder: Path,
    progress: Progress,
    spaces: SpacesConfig,
    connectors: Mapping[str, Any],
    net: Mapping[str, Any],
    origin: Mapping[str, Any],
) -> None:
    """Describe the files in a folder; `origin` has further entries."""
    manifest = {
        "format_version": _FORMAT_VERSION,
        "written_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "progress": asdict(progress),
        **origin,
        "spaces": asdict(spaces),
        "connectors": connectors,
        "net": net,
        "files": {name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for name, path in files_of(folder).items()},
    }
    content = json.dumps(manifest, indent=1).encode()
    (folder / MANIFEST).write_bytes(content)
    (folder / _MANIFEST_SUM).write_text(_sum_line(content), encoding="ascii")


def files_of(folder: Path) -> dict[str, Path]:
    """List the files below a folder by their relative names, the manifest and its sum apart."""
    described = (path for path in sorted(folder.rglob("*")) if path not in (folder / MANIFEST, folder / _MANIFEST_SUM))
    return {str(path.relative_to(folder)): path for path in described if path.is_file()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sum_line(manifest: bytes) -> str:
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n"
