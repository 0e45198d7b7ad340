"""`policy-monitor`: shows and exports what a run recorded."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sqlite3
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from policyserver.common.command_line import OptionParser
from policyserver.common.file_permissions import keep_others_from_writing
from policyserver.common.settings import add_arguments, from_arguments, load, reason_of
from policyserver.common.standard_streams import LastingStream, lasting_streams
from policyserver.monitoring.page.listen import PageConfig
from policyserver.monitoring.store import export_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 after a signal, 1 if standard output took only a part of an export, 2 for a wrong setting."""
    with lasting_streams("policy-monitor") as out:
        try:
            return _run_command(arguments, out)
        except KeyboardInterrupt:
            return 128 + signal.SIGINT


def _run_command(arguments: Sequence[str] | None, out: LastingStream) -> int:
    options = make_parser().parse_args(arguments)
    keep_others_from_writing()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return export_command.export(options, out) if options.command == "export" else _serve(options)


def make_parser() -> argparse.ArgumentParser:
    """Return the command's parser, which its reference is generated from, too."""
    parser = OptionParser(prog="policy-monitor", description="Shows and exports what a run recorded.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve the live page of a store until interrupted")
    serve.add_argument("--store", type=Path, required=True, metavar="FILE", help="the run's store.sqlite")
    add_arguments(serve, PageConfig)
    export_command.add_arguments(commands.add_parser("export", help="write points of a store as line protocol or CSV"))
    return parser


def _serve(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    from policyserver.monitoring.page.server import PageServer  # with starlette and uvicorn, which an export does without

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with contextlib.ExitStack() as ending:
        try:
            listen = load(PageConfig, None, from_arguments(PageConfig, options))
            page = PageServer(listen, key="--address", prefix="--")
            ending.callback(page.close)
            page.start(options.store)
        except (OSError, ValueError, sqlite3.Error) as error:
            sys.stderr.write(f"policy-monitor: {reason_of(error)}\n")
            return 2
        sys.stdout.write(f"page at {page.address}\n")
        sys.stdout.flush()
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
