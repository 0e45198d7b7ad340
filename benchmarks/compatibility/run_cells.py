"""Runs many cells in worker processes; one that hangs or dies costs its cell and is replaced."""

from __future__ import annotations

import json
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.compatibility.cells import Cell
from benchmarks.folders import ROOT

logger = logging.getLogger("compatibility")

ROOTS = ("client", "server", "monitoring", "pipelines", "proto")
CELL_TIMEOUT_S = 240.0
"""Longest time of a cell, that of RLlib alone included."""
START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 30.0
WORKER_COMMAND = (sys.executable, "-m", "benchmarks.compatibility.worker")


class WorkerError(Exception):
    """A worker process gave no result; the text says why."""


class Worker:
    """A worker process and its pipes; started when it is first needed."""

    def __init__(self, folder: Path, number: int, command: Sequence[str] = WORKER_COMMAND) -> None:
        self._pointer, self._log = folder / f"ray-{number}", folder / f"worker-{number}.log"
        self._command = [*command, str(self._pointer)]
        self._process: subprocess.Popen[str] | None = None

    def run(self, name: str, timeout_s: float = CELL_TIMEOUT_S) -> dict[str, Any]:
        """Run a cell and return its result.

        Raises:
            WorkerError: The process hung, and was killed, or died.
            RuntimeError: It did not even start.
        """
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(name + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # reading finds out how it ended
        return self._read(timeout_s)

    def close(self) -> None:
        """End the process; kill it if it does not end by itself."""
        if self._process is not None and self._process.stdin is not None:
            try:
                self._process.stdin.close()
                self._process.wait(_STOP_TIMEOUT_S)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                pass
        self.kill()

    def kill(self) -> None:
        """End the process at once, whatever it does; Ray's processes die with it."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        if self._pointer.is_symlink():
            shutil.rmtree(self._pointer.resolve(), ignore_errors=True)
            self._pointer.unlink()

    def _start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *(ROOT / name for name in ROOTS)]))}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        try:
            self._read(START_TIMEOUT_S)
        except WorkerError as error:
            raise RuntimeError(f"no worker starts: {error}; see {self._log}") from error

    def _read(self, timeout_s: float) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        timed_out = threading.Event()

        def end() -> None:
            timed_out.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(timeout_s, end)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        timer.join()
        if line.endswith("\n") and not timed_out.is_set():
            found: dict[str, Any] = json.loads(line)
            return found
        try:
            process.wait(_STOP_TIMEOUT_S)  # its output ends before it does, and its status says why
        except subprocess.TimeoutExpired:
            pass
        self.kill()
        raise WorkerError(
            f"timed out after {timeout_s:g} s" if timed_out.is_set() else f"the process ended with status {process.returncode}"
        )


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    workers: int,
    *,
    command: Sequence[str] = WORKER_COMMAND,
    timeout_s: float = CELL_TIMEOUT_S,
    tell: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, dict[str, Any]]:
    """Run cells and return their results by name.

    Args:
        cells: Which.
        folder: For each result a file NAME.json, and the logs of the workers.
        workers: How many run at a time.
        command: What starts a worker.
        timeout_s: Longest time of a cell, seconds.
        tell: Called with each result when it is there.

    Raises:
        RuntimeError: A worker did not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting: queue.SimpleQueue[Cell] = queue.SimpleQueue()
    for cell in cells:
        waiting.put(cell)
        (folder / f"{cell.name}.json").unlink(missing_ok=True)
    results: dict[str, dict[str, Any]] = {}
    stopping = threading.Event()

    def work(number: int) -> None:
        worker = Worker(folder, number, command)
        try:
            while not stopping.is_set():
                try:
                    cell = waiting.get_nowait()
                except queue.Empty:
                    return
                results[cell.name] = result = _run(worker, cell, timeout_s)
                (folder / f"{cell.name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
                tell(result)
        finally:
            stopping.set()  # all cells are taken, or something is wrong
            worker.close()

    with ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(work, range(workers)))
        finally:
            stopping.set()
    return results


def _run(worker: Worker, cell: Cell, timeout_s: float) -> dict[str, Any]:
    began = time.monotonic()
    try:
        return worker.run(cell.name, timeout_s)
    except WorkerError as error:
        return {"cell": cell.name, "outcome": "no", "error": str(error), "seconds": round(time.monotonic() - began, 2)}
