"""`policy-pipeline replay RUN`: plays a recorded run again, and tells whether it comes out the same."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policyserver.pipelines.replay.replayed_run import RecordedRun
    from policyserver.pipelines.replay.replayer import RecordedPolicy

EQUAL, DIFFERENT, NOT_REPLAYABLE = 0, 1, 2
"""Exit statuses."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the result there, too: a list with an entry for each part of the run"
    )
    parser.add_argument("--ask", action="store_true", help="ask a server for the actions again: one with the run's checkpoint, frozen")
    parser.add_argument("--server", metavar="ADDRESS", help="with --ask: host:port or unix:path of the server (default: the run's)")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Replay each part of a run; return the exit status: 0 equal, 1 different, 2 not replayable."""
    from policyserver.pipelines.replay.comparison import NotReplayableError
    from policyserver.pipelines.replay.replayed_run import RecordedRun, ReplayResult
    from policyserver.pipelines.replay.run_folder import parts_of

    results: list[ReplayResult] = []
    try:
        parts = parts_of(options.run)
        if not parts:
            raise NotReplayableError(f"{options.run}: expected the folder of a recorded run, received one without run.json")
        if options.server and not options.ask:
            raise NotReplayableError("--server: expected with --ask alone")
        for folder in parts:
            recorded = RecordedRun(folder)
            with _policy(recorded, options) as policy:
                results.append(recorded.replay(policy))
            sys.stdout.write(results[-1].text())
    except NotReplayableError as error:
        sys.stderr.write(f"policy-pipeline: not replayable: {error}\n")
        return NOT_REPLAYABLE
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=2) + "\n", encoding="utf-8")
    return EQUAL if all(result.equal for result in results) else DIFFERENT


@contextmanager
def _policy(recorded: RecordedRun, options: argparse.Namespace) -> Iterator[RecordedPolicy]:
    """Open what answers: the log, or a server that is asked again."""
    if options.ask:
        from policyserver.pipelines.replay.asking import asked_policy

        with asked_policy(recorded, options.server) as asked:
            yield asked
    else:
        from policyserver.pipelines.replay.replayer import RecordedPolicy

        yield RecordedPolicy(recorded.log.action)
