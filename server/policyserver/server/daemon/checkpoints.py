"""Checkpoints that are whole or absent.

RLlib writes a checkpoint in place, so a crash leaves a mixture that restores without an error. Here it is written into a temporary folder
on the same file system, described by a manifest (size and SHA-256 of every file) that has a SHA-256 of its own beside it, forced to disk,
and only then renamed. What does not match is passed over at the next start, with a warning, for the one before it. `sha256sum -c` reads
the manifest's sum, too.

A checkpoint holds pickles: it is code. So the folders are private to their owner, and one that others could have written is refused.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import gymnasium as gym

from policyserver.server.config.rllib_config import SpacesConfig
from policyserver.server.config.space_tables import space_from_config
from policyserver.server.config.standard_connectors import ConnectorsConfig
from policyserver.server.daemon.folder_lock import FolderLock
from policyserver.server.processes.training_report import Progress

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_MANIFEST_SUM = "manifest.json.sha256"
_PREFIX = "checkpoint-"
_UNFINISHED_PREFIX = "tmp-"
_FORMAT_VERSION = 2
_WITHOUT_SUM = 1
"""Format version of manifests that have no sum of their own; still read."""


class CheckpointError(RuntimeError):
    """A checkpoint that can't be used, or can't be written."""


@dataclass(frozen=True)
class Checkpoint:
    """One whole checkpoint."""

    path: Path
    """Its folder; RLlib's own files lie in it."""
    progress: Progress
    """How far the run had come."""

    @property
    def number(self) -> int:
        """Its number among those of its run."""
        return _serial(self.path)


class CheckpointFolder:
    """The checkpoints of one run. Only the process that has claimed the folder writes there, until `close()`."""

    def __init__(
        self,
        folder: Path,
        keep: int,
        spaces: SpacesConfig,
        connectors: ConnectorsConfig | None = None,
        net: Mapping[str, Any] | None = None,
        *,
        claim: bool = True,
    ) -> None:
        """Open or make the folder, and remove what a crash left half-written.

        Args:
            folder: Where the checkpoints lie.
            keep: Newest checkpoints kept.
            spaces: What they are for; one for other spaces is refused.
            connectors: What happens to an observation before the net sees it; likewise.
            net: What the net is made of, by setting; likewise.
            claim: False: the folder must be there, may be another process's, and is only read.

        Raises:
            FolderInUseError: If another process has claimed the folder.
        """
        if claim:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder.resolve()
        self._keep = keep
        self._spaces = spaces
        self._connectors = asdict(connectors or ConnectorsConfig())
        self._net: dict[str, Any] = json.loads(json.dumps(dict(net or {}), default=repr))  # as a manifest gives it back
        self._lock = FolderLock(self._folder) if claim else None
        if claim:
            self._remove_unfinished()

    def _remove_unfinished(self) -> None:
        for leftover in self._folder.glob(f"{_UNFINISHED_PREFIX}*"):
            logger.warning("removing the unfinished checkpoint %s", leftover)
            shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()

    def close(self) -> None:
        """Give the folder back. A second call does nothing."""
        if self._lock is not None:
            self._lock.release()

    def newest_whole(self) -> Checkpoint | None:
        """Find the newest checkpoint whose every file is as its manifest says.

        Raises:
            CheckpointError: If that one is for other spaces, connectors or another net, or if others than its owner could have changed it.
        """
        for path in reversed(self._all()):
            try:
                return self._checked(path)
            except _UNREADABLE as error:
                logger.warning("passing over the damaged checkpoint %s: %s", path, error)
        return None

    def whole(self, number: int) -> Checkpoint:
        """Find the checkpoint of a number.

        Raises:
            CheckpointError: There is no such checkpoint, it is damaged, or what `newest_whole` says.
        """
        present = {_serial(path): path for path in self._all()}
        if number not in present:
            there = ", ".join(map(str, sorted(present))) or "none"
            raise CheckpointError(f"{self._folder}: expected the number of a checkpoint that is there, {there}, received {number}")
        try:
            return self._checked(present[number])
        except _UNREADABLE as error:
            raise CheckpointError(f"{present[number]}: damaged: {error}") from error

    def _checked(self, path: Path) -> Checkpoint:
        """Return a checkpoint whose every file is as its manifest says, and which is for this configuration."""
        manifest = _verified_manifest(path)
        _refuse_if_foreign(path)
        self._refuse_other_spaces(path, manifest)
        self._refuse_others(path, {f"connectors.{name}": value for name, value in self._connectors.items()}, manifest.connectors)
        self._refuse_others(path, self._net, manifest.net)
        return Checkpoint(path, manifest.progress)

    def save(self, write: Callable[[Path], Any], progress: Progress) -> Checkpoint:
        """Write one checkpoint, whole or not at all, and drop the oldest beyond those to keep.

        Args:
            write: Writes its files into the folder it is given, e.g. `Algorithm.save_to_path`.
            progress: How far the run has come.

        Raises:
            CheckpointError: If it can't be written; those there are untouched.
        """
        present = self._all()
        serial = 1 + max((_serial(path) for path in self._named()), default=0)
        unfinished = self._folder / f"{_UNFINISHED_PREFIX}{serial:08d}"
        final = self._folder / f"{_PREFIX}{serial:08d}"
        try:
            unfinished.mkdir(mode=0o700)
            write(unfinished)
            self._describe(unfinished, progress)
            _force_to_disk(unfinished)
            unfinished.rename(final)
            _fsync(self._folder)
        except Exception as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise CheckpointError(f"{final}: can't be written: {error}") from error
        for outdated in [*present, final][: -self._keep]:
            shutil.rmtree(outdated, ignore_errors=True)
        return Checkpoint(final, progress)

    def _all(self) -> list[Path]:
        """List the checkpoints' folders, oldest first."""
        return sorted((path for path in self._named() if path.is_dir()), key=_serial)

    def _named(self) -> list[Path]:
        """List whatever has a checkpoint's name."""
        return [path for path in self._folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal()]

    def _describe(self, folder: Path, progress: Progress) -> None:
        manifest = {
            "format_version": _FORMAT_VERSION,
            "written_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "progress": asdict(progress),
            "spaces": asdict(self._spaces),
            "connectors": self._connectors,
            "net": self._net,
            "files": {name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for name, path in _files(folder).items()},
        }
        content = json.dumps(manifest, indent=1).encode()
        (folder / _MANIFEST).write_bytes(content)
        (folder / _MANIFEST_SUM).write_text(_sum_line(content), encoding="ascii")

    def _refuse_other_spaces(self, path: Path, manifest: _Manifest) -> None:
        for name, ours in asdict(self._spaces).items():
            theirs = manifest.spaces[name]
            expected = space_from_config(ours, name)
            if theirs != expected:
                raise CheckpointError(
                    f"{path}: made for the {name} space {theirs}, but the configuration says {expected}; "
                    f"choose another run_folder, or restore the old spaces.{name}"
                )

    def _refuse_others(self, path: Path, settings: dict[str, Any], theirs: dict[str, Any]) -> None:
        """Refuse a checkpoint that was made with other settings, by dotted key.

        A net that learned from normalized observations, or one with another activation, would take the weights without an error, and act at
        random.
        """
        for name, ours in settings.items():
            if (made_with := theirs.get(name, ours)) != ours:  # older manifests don't say
                raise CheckpointError(
                    f"{path}: made with {name} = {json.dumps(made_with)}, but the configuration says {json.dumps(ours)}; "
                    f"choose another run_folder, or restore the old {name}"
                )


@dataclass(frozen=True)
class _Manifest:
    """What a checkpoint says of itself."""

    progress: Progress
    spaces: dict[str, gym.Space[Any]]
    connectors: dict[str, Any]
    """By dotted key, like `net`."""
    net: dict[str, Any]


_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""Errors that reading a damaged manifest may raise."""


def _verified_manifest(path: Path) -> _Manifest:
    """Read a manifest, compare it with its sum, and every file with it."""
    content = (path / _MANIFEST).read_bytes()
    manifest: dict[str, Any] = json.loads(content)
    version = manifest["format_version"]
    if version not in (_WITHOUT_SUM, _FORMAT_VERSION):
        raise ValueError(f"format version {version}, expected {_FORMAT_VERSION}")
    if (version != _WITHOUT_SUM or (path / _MANIFEST_SUM).exists()) and (path / _MANIFEST_SUM).read_bytes() != _sum_line(content).encode():
        raise ValueError(f"{_MANIFEST}: its SHA-256 is not that of {_MANIFEST_SUM}")
    present = _files(path)
    if present.keys() != manifest["files"].keys():
        differing = sorted(present.keys() ^ manifest["files"].keys())
        raise ValueError(f"files missing or not in the manifest: {', '.join(differing)}")
    for name, expected in manifest["files"].items():
        size = present[name].stat().st_size
        if size != expected["bytes"]:
            raise ValueError(f"{name}: expected {expected['bytes']} bytes, received {size}")
        if _sha256(present[name]) != expected["sha256"]:
            raise ValueError(f"{name}: its SHA-256 is not that of the manifest")
    spaces = {entry.name: space_from_config(manifest["spaces"][entry.name], entry.name) for entry in fields(SpacesConfig)}
    connectors = {f"connectors.{name}": value for name, value in manifest.get("connectors", {}).items()}
    return _Manifest(Progress(**manifest["progress"]), spaces, connectors, dict(manifest.get("net", {})))


def _sum_line(manifest: bytes) -> str:
    return f"{hashlib.sha256(manifest).hexdigest()}  {_MANIFEST}\n"


def _refuse_if_foreign(path: Path) -> None:
    for entry in (path, *path.rglob("*")):
        status = entry.lstat()
        if status.st_uid != os.geteuid() or (not entry.is_symlink() and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            raise CheckpointError(f"{entry}: expected a file that only this user can write, for a checkpoint is code; check who changed it")


def _serial(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def _files(folder: Path) -> dict[str, Path]:
    """List the files below a folder by their relative names, the manifest and its sum apart."""
    described = (path for path in sorted(folder.rglob("*")) if path not in (folder / _MANIFEST, folder / _MANIFEST_SUM))
    return {str(path.relative_to(folder)): path for path in described if path.is_file()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _force_to_disk(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o700 if path.is_dir() else 0o600)
        _fsync(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
