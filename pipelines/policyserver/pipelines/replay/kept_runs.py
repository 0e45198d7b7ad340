"""How many runs are kept: when one begins, the oldest beside it are removed, and the oldest parts of its own."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from policyserver.common.file_lock import FileLock
from policyserver.pipelines.replay.run_folder import PIPELINE_FILE, RUN_FILE, name_of, parts_of

logger = logging.getLogger(__name__)

_LOCKS = ("run.lock", "lock", "checkpoints/lock", "*-housekeeper")
"""Files that a process has locked while it plays the run, serves it, or records into a store of it."""

_REMOVED = ".{}.removed"
"""What a folder is called while it is removed."""


def drop_oldest(folder: Path, pattern: Path, keep: int) -> None:
    """Remove what is older than the newest `keep` runs; what is in use stays, and so does what can't be removed.

    Runs are folders beside this one, with a name of its kind and the files of a run. A link does not count. The newest is the one that
    began, or was resumed, last.

    Args:
        folder: Of the run that begins; it stays.
        pattern: What it was named by; see `folder_of`.
        keep: How many runs stay with it, and how many parts in it.
    """
    for outdated in parts_of(folder)[:-keep]:
        shutil.rmtree(outdated, ignore_errors=True)
    name = name_of(pattern, folder)
    if name is None:
        return
    runs = sorted(_runs(folder.parent, name), key=lambda run: (run == folder, _begun_ns(run), run.name))
    for outdated in runs[:-keep]:
        _remove(outdated)
    for left in folder.parent.glob(_REMOVED.format("*")):  # by a process that ended meanwhile
        if name.fullmatch(left.name.removeprefix(".").removesuffix(".removed")):
            shutil.rmtree(left, ignore_errors=True)


def _runs(root: Path, name: re.Pattern[str]) -> Iterator[Path]:
    for path in root.iterdir():
        is_folder = path.is_dir() and not path.is_symlink()
        if is_folder and name.fullmatch(path.name) and all((path / file).is_file() for file in (RUN_FILE, PIPELINE_FILE)):
            yield path


def _begun_ns(run: Path) -> int:
    """When the newest part of a run began; 0: another process has just removed it."""
    with suppress(FileNotFoundError):
        return (run / RUN_FILE).stat().st_mtime_ns
    return 0


def _remove(run: Path) -> None:
    """Remove a run unless it is in use. Under its locks it gets another name, so that no process finds half of it."""
    aside = run.with_name(_REMOVED.format(run.name))
    try:
        with ExitStack() as held:
            for path in [path for pattern in _LOCKS for path in run.glob(pattern)]:
                lock = FileLock(path)
                if not lock.take():
                    return
                held.callback(lock.release)
            run.rename(aside)
        shutil.rmtree(aside)
        logger.warning("%s: removed, for more runs were there than recording.keep_runs", run)
    except OSError as error:
        logger.warning("%s: can't be removed, though more runs are there than recording.keep_runs: %s", run, error)
