"""Run folders: runs/<UTC time>-seed<N>, one for each run; and what an earlier part of a run left in one."""

from __future__ import annotations

import datetime
import re
import shutil
from pathlib import Path

from policyserver.pipelines.forecast.state_file import STATE_FILE

PIPELINE_FILE, RUN_FILE, SUMMARY_FILE = "pipeline.toml", "run.json", "summary.json"
"""Names of files in the folder: the settings as they were resolved, what the run was made with, and its figures."""

START_FILE = "forecast_start.state"
"""Name of the file with what the run's forecaster began with."""

EARLIER = "earlier"
"""Folder, within a run's folder, of the parts before the newest: earlier/1, earlier/2, ..."""

_NAME = re.compile(r"\d{8}T\d{6}Z-seed\d+(-\d+)?")
_OF_A_PART = (PIPELINE_FILE, SUMMARY_FILE, STATE_FILE, START_FILE, "events.arrows", "events.crc32", RUN_FILE)
"""Files of a part; the last one says that there is one, and so is moved last: what a kill has left is moved by the next call."""


def new_run_folder(root: Path, seed: int) -> Path:
    """Make and return an empty folder named after the time and the seed."""
    return folder_of(root / "{time}-seed{seed}", seed)


def folder_of(pattern: Path, seed: int) -> Path:
    """Make and return the folder that a pattern names; with {time} in its name it is a new one, otherwise it may exist.

    Raises:
        OSError: It can't be made.
    """
    time = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}"
    stem = pattern.name.replace("{time}", time).replace("{seed}", str(seed))
    if "{time}" not in pattern.name:
        folder = pattern.with_name(stem)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    for attempt in range(1000):
        folder = pattern.with_name(stem if attempt == 0 else f"{stem}-{attempt}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
    raise FileExistsError(f"{pattern.with_name(stem)}: expected a free name, a thousand are taken")


def name_of(pattern: Path, folder: Path) -> re.Pattern[str] | None:
    """Return the names of the folders that are of one kind with a run's: those by its pattern; None where each has a name of its own."""
    if "{time}" not in pattern.name:
        return _NAME if _NAME.fullmatch(folder.name) else None
    name = re.escape(pattern.name).replace(r"\{time\}", r"\d{8}T\d{6}Z").replace(r"\{seed\}", r"\d+")
    return re.compile(rf"{name}(-\d+)?")


def newest_run_folder(root: Path, with_file: str = "") -> Path:
    """Return the newest run folder, of those that hold a file if one is named.

    Raises:
        FileNotFoundError: None was found.
    """
    folders = [path for path in root.glob("*") if path.is_dir() and _NAME.fullmatch(path.name) and (path / with_file).exists()]
    if not folders:
        raise FileNotFoundError(f"{root}: expected the folder of an earlier run to resume, received none")
    return max(folders, key=lambda path: path.name)


def put_aside(folder: Path) -> Path | None:
    """Move what an earlier part of the run left in its folder into earlier/N, and return that; the settings are copied.

    Does nothing in a new folder, and returns None.
    """
    if not (folder / RUN_FILE).exists():
        return None
    newest = max((int(path.name) for path in (folder / EARLIER).glob("*") if path.name.isdecimal()), default=0)
    half_moved = newest > 0 and not (folder / EARLIER / str(newest) / RUN_FILE).exists()
    aside = folder / EARLIER / str(newest if half_moved else newest + 1)
    aside.mkdir(parents=True, exist_ok=half_moved)
    for name in _OF_A_PART:
        if (folder / name).exists():
            (shutil.copy2 if name == PIPELINE_FILE else shutil.move)(folder / name, aside / name)
    return aside


def parts_of(folder: Path) -> list[Path]:
    """Return the folders of the recorded parts of a run, the oldest first."""
    earlier = sorted((path for path in (folder / EARLIER).glob("*") if path.name.isdecimal()), key=lambda path: int(path.name))
    return [path for path in (*earlier, folder) if (path / RUN_FILE).exists()]
