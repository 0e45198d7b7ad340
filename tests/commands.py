"""Our commands within the tests' own process: what they say and their status, without the seconds that a new interpreter takes."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MODULES = {
    "policy-server": "policyserver.server.__main__",
    "policy-pipeline": "policyserver.pipelines.__main__",
    "policy-monitor": "policyserver.monitoring.__main__",
}


def run_here(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself before it starts anything."""
    main = importlib.import_module(_MODULES[command]).main
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2))
    with _kept_process(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(arguments)
        except SystemExit as ended:  # argparse's
            status = ended.code
    said = []
    for stream in (out, err):
        stream.flush()
        assert isinstance(stream.buffer, io.BytesIO)
        said.append(stream.buffer.getvalue().decode())
    return subprocess.CompletedProcess([command, *arguments], status, *said)


def ctl(run_folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `policy-server ctl` for the server of a run folder."""
    return run_here("policy-server", "ctl", *arguments, "--run_folder", str(run_folder))


def ctl_answer(run_folder: Path, call: str, *arguments: str) -> dict[str, Any]:
    """Return what `policy-server ctl` answers, which is no refusal.

    It waits for longer than an update takes where other tests keep the processors busy: the learner gives way to them.
    """
    ended = ctl(run_folder, call, "--timeout_s", "200", *arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


@contextlib.contextmanager
def _kept_process() -> Iterator[None]:
    """Undo what a command does to its process."""
    umask = os.umask(0o022)
    os.umask(umask)
    interval_s = sys.getswitchinterval()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    root = logging.getLogger()
    log = root.handlers[:], root.level
    try:
        yield
    finally:
        if root.handlers != log[0]:  # it has begun a log of its own
            logging.captureWarnings(False)
            root.handlers[:] = log[0]
            root.setLevel(log[1])
        os.umask(umask)
        sys.setswitchinterval(interval_s)
        for number, handler in handlers.items():
            signal.signal(number, handler)
