"""`policy-pipeline check-data FILE ...`: what files of bars hold, and what is wrong with them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from policyserver.common.settings import SettingsError, add_arguments, from_arguments, load
from policyserver.pipelines.market.files.config import FilesConfig
from policyserver.pipelines.market.files.faults import FileFaultError, FileReport


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="CSV, also .gz or .zip, or Parquet")
    parser.add_argument("--config", type=Path, help="TOML file; without one, the defaults")
    add_arguments(parser, FilesConfig)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print a report of each file; return 1 if one has a fault, else 0."""
    config = load(FilesConfig, options.config, from_arguments(FilesConfig, options))
    is_clean = True
    for path in options.files:
        try:
            for report in check_data(path, config):
                is_clean &= report.is_clean
                sys.stdout.write(report.text() + "\n")
        except FileFaultError as error:
            is_clean = False
            sys.stdout.write(f"{error}\n")
        except OSError as error:
            is_clean = False
            sys.stdout.write(f"{path}: expected a readable file: {error.strerror or error}\n")
    return 0 if is_clean else 1


def check_data(path: Path, config: FilesConfig) -> Iterator[FileReport]:
    """Yield what a file holds of each of its symbols.

    Raises:
        FileFaultError: The file isn't what its dialect says, so that nothing can be read.
        OSError: It can't be read.
        SettingsError: There is no such calendar, or it isn't known at the times of the bars.
    """
    from policyserver.pipelines.market.calendars import make_calendar
    from policyserver.pipelines.market.files.reader import inspect_file

    try:
        calendar = make_calendar(config.calendar) if config.calendar else None
    except ValueError as error:
        raise SettingsError("calendar", "option", str(error).partition(": ")[2]) from error
    try:
        for recording in inspect_file(path, config.chosen, config.faults, calendar):
            yield recording.report
    except SettingsError as error:
        raise SettingsError(error.key.removeprefix("files."), "option", error.problem) from error
