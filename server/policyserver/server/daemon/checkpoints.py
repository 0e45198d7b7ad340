"""Checkpoints that are whole or absent.

RLlib writes a checkpoint in place, so a crash leaves a mixture that restores without an error. Here it is written into a temporary folder
on the same file system, described by a manifest (size and SHA-256 of every file) that has a SHA-256 of its own beside it, forced to disk,
and only then renamed. What does not match is passed over at the next start, with a warning, for the one before it. `sha256sum -c` reads
the manifest's sum, too.

A checkpoint holds pickles: it is code. So the folders are private to their owner, and one that others could have written is refused.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import stat
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from policyserver.server.config.rllib_config import SpacesConfig
from policyserver.server.config.space_tables import space_from_config
from policyserver.server.config.standard_connectors import ConnectorsConfig
from policyserver.server.daemon.checkpoint_manifest import UNREADABLE, Manifest, files_of, manifest_of, verified_manifest, write_manifest
from policyserver.server.daemon.finite_checkpoint import first_not_finite
from policyserver.server.daemon.folder_lock import FolderLock
from policyserver.server.daemon.roll_back_mark import RollBackMark, read_mark, remove_mark, write_mark
from policyserver.server.processes.training_report import Progress

logger = logging.getLogger(__name__)

_PREFIX = "checkpoint-"
_UNFINISHED_PREFIX = "tmp-"


class CheckpointError(RuntimeError):
    """A checkpoint that can't be used, or can't be written."""


class CheckpointNotFiniteError(CheckpointError):
    """A checkpoint with numbers that are not finite: what is served from it would choose no action that means anything."""


class CheckpointUnknownError(CheckpointError):
    """There is no checkpoint of that number."""


@dataclass(frozen=True)
class Checkpoint:
    """One whole checkpoint."""

    path: Path
    """Its folder; RLlib's own files lie in it."""
    progress: Progress
    """How far the run had come."""
    weights_sha256: str = ""
    """Sum of the weights that are served from it, see `sha256_of_weights`; empty where an older version wrote it."""
    written_at: str = ""
    """ISO 8601, UTC."""
    size_bytes: int = 0
    """Of all its files."""
    is_pinned: bool = False
    """Whether it outlives those that are newer."""
    lineage: int = 0
    """How many roll-backs of the run are behind it."""
    restored_from: int = 0
    """Number of the checkpoint to which the newest of these went; 0 if there was no roll-back."""

    @property
    def number(self) -> int:
        """What names it in its folder."""
        return _serial(self.path)


class CheckpointFolder:
    """The checkpoints of one run. From any thread.

    Only the process that has claimed the folder writes there, until `close()`.
    """

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
        self._writing = threading.RLock()  # checkpoints come and go one at a time
        self._used: Counter[int] = Counter()
        self.refusal: Callable[[], str] = str
        """Why no checkpoint may be written now, as another process has the run; "" if one may."""
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
        """Find the newest checkpoint whose every file is as its manifest says; or the one of a newer roll-back that could not be written.

        Raises:
            CheckpointNotFiniteError: If that one has numbers that are not finite.
            CheckpointError: If that one is for other spaces, connectors or another net, or if others than its owner could have changed it.
        """
        for path in reversed(self._all()):
            try:
                manifest = verified_manifest(path)
            except UNREADABLE as error:
                logger.warning("passing over the damaged checkpoint %s: %s", path, error)
                continue
            return self._rolled_back(manifest) or self._accepted(path, manifest)
        return None

    def _rolled_back(self, newest: Manifest) -> Checkpoint | None:
        """Return the checkpoint that was served last, if the disk was too full to write it again after the newest one."""
        if (mark := read_mark(self._folder)) is None or mark.lineage <= newest.lineage:
            return None
        try:
            source = self._accepted(mark.path, verified_manifest(mark.path))
        except (CheckpointError, *UNREADABLE) as error:
            logger.warning("passing over the checkpoint %s, to which the run was rolled back: %s", mark.path, error)
            return None
        progress = replace(newest.progress, weights_seq_no=mark.weights_seq_no)
        return replace(source, progress=progress, lineage=mark.lineage, restored_from=source.number)

    def mark_roll_back(self, source: Checkpoint, weights_seq_no: int, lineage: int) -> None:
        """Have the next start go on from a checkpoint that is served, but that `copy` could not write."""
        with self._writing:
            write_mark(self._folder, RollBackMark(weights_seq_no, lineage, source.path))

    def whole(self, number: int) -> Checkpoint:
        """Return the checkpoint of a number, whole and fit to be used.

        Raises:
            CheckpointUnknownError: No checkpoint has that number.
            CheckpointNotFiniteError: It has numbers that are not finite.
            CheckpointError: It is damaged, for something else, or others than its owner could have changed it.
        """
        path = self._path_of(number)
        try:
            return self._accepted(path, verified_manifest(path))
        except UNREADABLE as error:
            raise CheckpointError(f"{path}: damaged: {error}; choose another one") from error

    def all(self) -> list[Checkpoint]:
        """List the checkpoints, oldest first, without a look at all their bytes; those without a readable manifest are left out."""
        found = []
        for path in self._all():
            with contextlib.suppress(*UNREADABLE):
                found.append(self._checkpoint(path, manifest_of(path)))
        return found

    def pin(self, number: int, *, pinned: bool) -> Checkpoint:
        """Keep a checkpoint whatever comes after it, or no longer.

        Raises:
            CheckpointUnknownError: No checkpoint has that number.
            CheckpointError: That can't be written down.
        """
        with self._writing:
            path = self._path_of(number)
            try:
                _pin(path).touch(mode=0o600) if pinned else _pin(path).unlink(missing_ok=True)
                return self._checkpoint(path, manifest_of(path))
            except UNREADABLE as error:
                raise CheckpointError(f"{path}: can't be pinned: {error}") from error

    def use(self, number: int, *, used: bool) -> None:
        """Keep a checkpoint while it is used, or no longer; as often one as the other."""
        with self._writing:
            self._used[number] += 1 if used else -1

    def _path_of(self, number: int) -> Path:
        for path in (present := self._all()):
            if _serial(path) == number:
                return path
        there = ", ".join(str(_serial(path)) for path in present) or "of which the run has none yet"
        raise CheckpointUnknownError(f"expected the number of a checkpoint that is there, {there}, received {number}")

    def _accepted(self, path: Path, manifest: Manifest) -> Checkpoint:
        _refuse_if_foreign(path)
        self._refuse_other_spaces(path, manifest)
        self._refuse_others(path, {f"connectors.{name}": value for name, value in self._connectors.items()}, manifest.connectors)
        self._refuse_others(path, self._net, manifest.net)
        if found := first_not_finite(path):
            raise CheckpointNotFiniteError(
                f"{path}: expected finite numbers, received {found}; choose an earlier checkpoint, or move this folder away, so that the "
                "one before it is the newest"
            )
        return self._checkpoint(path, manifest)

    @staticmethod
    def _checkpoint(path: Path, manifest: Manifest) -> Checkpoint:
        return Checkpoint(
            path,
            manifest.progress,
            manifest.weights_sha256,
            manifest.written_at,
            manifest.size_bytes,
            _pin(path).exists(),
            manifest.lineage,
            manifest.restored_from,
        )

    def save(
        self,
        write: Callable[[Path], Any],
        progress: Progress,
        weights_sha256: str = "",
        *,
        pin: bool = False,
        lineage: int = 0,
        restored_from: int = 0,
    ) -> Checkpoint:
        """Write one checkpoint, whole or not at all, and drop the oldest beyond those to keep, but for pinned ones.

        Args:
            write: Writes its files into the folder it is given, e.g. `Algorithm.save_to_path`.
            progress: How far the run has come.
            weights_sha256: Sum of the weights that are served from it.
            pin: Whether it is pinned.
            lineage: How many roll-backs of the run are behind it.
            restored_from: Number of the checkpoint to which the newest of these went.

        Raises:
            CheckpointError: If it can't be written; those there are untouched.
        """
        with self._writing:
            present = self._all()
            serial = 1 + max((_serial(path) for path in self._named()), default=0)
            unfinished = self._folder / f"{_UNFINISHED_PREFIX}{serial:08d}"
            final = self._folder / f"{_PREFIX}{serial:08d}"
            try:
                unfinished.mkdir(mode=0o700)
                write(unfinished)
                origin = {"weights_sha256": weights_sha256, "lineage": lineage, "restored_from": restored_from}
                write_manifest(unfinished, progress, self._spaces, self._connectors, self._net, origin)
                _force_to_disk(unfinished)
                if refusal := self.refusal():
                    raise PermissionError(refusal)
                if pin:
                    _pin(final).touch(mode=0o600)
                unfinished.rename(final)
                _fsync(self._folder)
            except Exception as error:
                shutil.rmtree(unfinished, ignore_errors=True)
                _pin(final).unlink(missing_ok=True)
                raise CheckpointError(f"{final}: can't be written: {error}") from error
            remove_mark(self._folder)
            for outdated in [*present, final][: -self._keep]:
                if not _pin(outdated).exists() and self._used[_serial(outdated)] <= 0:
                    shutil.rmtree(outdated, ignore_errors=True)
            return self._checkpoint(final, manifest_of(final))

    def _all(self) -> list[Path]:
        """List the checkpoints' folders, oldest first."""
        return sorted((path for path in self._named() if path.is_dir()), key=_serial)

    def _named(self) -> list[Path]:
        """List whatever has a checkpoint's name."""
        return [path for path in self._folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal()]

    def copy(self, source: Checkpoint, progress: Progress, lineage: int) -> Checkpoint:
        """Write a checkpoint again, as the newest one and with other counters.

        Raises:
            CheckpointError: It can't be written; those there are untouched.
        """

        def write(folder: Path) -> None:
            for name, path in files_of(source.path).items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / name)

        return self.save(write, progress, source.weights_sha256, lineage=lineage, restored_from=source.number)

    def _refuse_other_spaces(self, path: Path, manifest: Manifest) -> None:
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


def _pin(path: Path) -> Path:
    """Return the file that is there if a checkpoint is pinned, beside its folder."""
    return path.with_name(f"{path.name}.pinned")


def _refuse_if_foreign(path: Path) -> None:
    for entry in (path, *path.rglob("*")):
        status = entry.lstat()
        if status.st_uid != os.geteuid() or (not entry.is_symlink() and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            raise CheckpointError(f"{entry}: expected a file that only this user can write, for a checkpoint is code; check who changed it")


def _serial(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


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
