"""Run folders: runs/<UTC time>-seed<N>, one for each demo."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

_NAME = re.compile(r"\d{8}T\d{6}Z-seed\d+(-\d+)?")


def new_run_folder(root: Path, seed: int) -> Path:
    """Make and return an empty folder named after the time and the seed."""
    stem = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}-seed{seed}"
    for attempt in range(1000):
        folder = root / (stem if attempt == 0 else f"{stem}-{attempt}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
    raise FileExistsError(f"{root / stem}: expected a free name, a thousand are taken")


def newest_run_folder(root: Path) -> Path:
    """Return the newest run folder.

    Raises:
        FileNotFoundError: None was found.
    """
    folders = [path for path in root.glob("*") if path.is_dir() and _NAME.fullmatch(path.name)]
    if not folders:
        raise FileNotFoundError(f"{root}: expected the folder of an earlier run to resume, received none")
    return max(folders, key=lambda path: path.name)
