"""`policy-monitor export`: its arguments, and the files that it writes whole or not at all."""

from __future__ import annotations

import argparse
import sqlite3
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO

from policyserver.common.standard_streams import LastingStream
from policyserver.common.whole_file import writing_whole
from policyserver.monitoring.line_protocol import tag_suffix
from policyserver.monitoring.store.export import EXPORTED, Exporter, ExportSelection
from policyserver.monitoring.store.export_pieces import whole_folder

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    option = parser.add_argument
    option("--store", type=Path, required=True, metavar="FILE", help="the run's store.sqlite")
    option("--format", choices=("lp", "csv"), default="lp", help="InfluxDB's line protocol (default), or CSV")
    what = "only this one; may be given several times. A name in _1m is of points merged by the minute"
    option("--measurement", action="append", choices=tuple(EXPORTED), help=what)
    option("--run", action="append", default=[], metavar="NAME", help="only this run; may be given several times")
    option("--from", dest="begin", type=_time_ns, default=0, metavar="TIME", help="first time, as 2026-11-21T08:00:00 (UTC)")
    option("--to", dest="end", type=_time_ns, default=2**63 - 1, metavar="TIME", help="time before which points are")
    where = "file; for CSV of several measurements, or pieces, a folder. Default: standard output"
    option("--output", type=Path, metavar="PATH", help=where)
    size = "line protocol in files of at most so many bytes; 8000000 fit into any InfluxDB's request"
    option("--piece_bytes", type=int, metavar="N", help=size)
    tag = "a further tag of every line, as INFLUXDB_V2_TAG_NAME is; may be given several times"
    option("--tag", action="append", type=_tag, default=[], metavar="NAME=VALUE", help=tag)
    option("--force", action="store_true", help="replace what is there")


def export(options: argparse.Namespace, out: LastingStream) -> int:
    """Export what the arguments say; return 0, or after an error 2, or 1 if `out` takes no more."""
    output: Path | None = options.output
    try:
        selection = ExportSelection(tuple(options.measurement or EXPORTED), tuple(options.run), options.begin, options.end)
        if options.format == "csv" and (options.piece_bytes is not None or options.tag):
            raise ValueError("format: expected lp, for --piece_bytes and --tag are of line protocol, received csv")
        if options.piece_bytes is not None and output is None:
            raise ValueError("output: expected a folder for the pieces, received none")
        more_tags = tag_suffix(dict(options.tag))
        if options.format == "csv" and len(selection.measurements) > 1 and output is None:
            raise ValueError("output: expected a folder for the CSV of several measurements, received none; or choose one --measurement")
        if output is not None and output.exists() and options.store.exists() and output.samefile(options.store):
            raise ValueError(f"output: expected another file than the store, received {output}")
        with Exporter.opened(options.store, selection) as exporter:
            if options.piece_bytes is not None and output is not None:
                with whole_folder(output, options.piece_bytes, force=options.force) as pieces:
                    points = exporter.line_protocol(pieces.write, more_tags)
                sys.stderr.write(f"{output}: {points:,} points in {pieces.count} files\n")
            elif options.format == "lp":
                _write_whole({output: lambda file: exporter.line_protocol(file.write, more_tags)}, out, force=options.force)
            elif output is None or len(selection.measurements) == 1:
                _write_whole({output: partial(exporter.csv, selection.measurements[0])}, out, force=options.force)
            else:
                output.mkdir(parents=True, exist_ok=True)
                files: dict[Path | None, Callable[[BinaryIO], int]] = {
                    output / f"{name}.csv": partial(exporter.csv, name) for name in selection.measurements
                }
                _write_whole(files, out, force=options.force)
    except (OSError, ValueError, sqlite3.Error) as error:
        sys.stderr.write(f"policy-monitor: {error}\n")
        return 2
    return 1 if out.reason else 0


def _write_whole(outputs: Mapping[Path | None, Callable[[BinaryIO], int]], out: LastingStream, *, force: bool) -> None:
    """Write files, which take their names when they are complete, or to standard output as much as it takes."""
    for path in outputs:
        if path is not None and path.is_dir():
            raise ValueError(f"output: expected a file, received the folder {path}")
        if path is not None and path.exists() and not force:
            raise ValueError(f"output: expected a file that is not there yet, received {path}; --force replaces it")
    for path, write in outputs.items():
        if path is None:
            try:
                write(out.buffer)
                out.buffer.flush()
            except OSError as error:
                out.give_up(error)
            continue
        with writing_whole(path) as part, part.open("wb") as file:
            points = write(file)
        sys.stderr.write(f"{path}: {points:,} points\n")


def _tag(text: str) -> tuple[str, str]:
    """Read a tag."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, received {text!r}")
    return name, value


def _time_ns(text: str) -> int:
    """Read a time, in UTC unless it names its offset."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a time such as 2026-11-21 or 2026-11-21T08:00:00+01:00, received {text!r}") from None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    return since // timedelta(microseconds=1) * 1000
