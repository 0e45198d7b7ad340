"""The run's log file: whole lines of every process, and no noise where it can't be written."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

LOG = """
import logging, resource, signal, sys
from pathlib import Path
from policyserver.server.processes.log_setup import log_to
log_to("INFO", Path(sys.argv[1]))
logger = logging.getLogger("server.some")
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
for number in range(200):
    logger.info("line %d %s", number, "x" * 50)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
logger.info("there is room again")
"""


def log_in_another_process(file: Path, limit_bytes: int) -> list[str]:
    """Log 200 lines to a file that takes so many bytes, then one more when it takes all; returns what standard error got."""
    ended = subprocess.run([sys.executable, "-c", LOG, str(file), str(limit_bytes)], capture_output=True, text=True, timeout=60, check=True)
    return ended.stderr.splitlines()


def test_a_full_disk_costs_lines_of_the_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    said = log_in_another_process(file, 5_000)
    assert not [line for line in said if "Traceback" in line or "Logging error" in line]
    assert len(said) == 200 + 1 + 1, "each line once, and once that the file takes no more"
    assert len([line for line in said if f"{file}: lines are lost: File too large" in line or "a part of a line" in line]) == 1
    written = file.read_text().splitlines()
    assert "there is room again" in written[-1]
    whole = [line for line in written if line.endswith("x" * 50)]
    assert written[-2] == f"{200 - len(whole)} lines are missing here, which could not be written"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_file_that_takes_nothing_makes_one_line(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    file.symlink_to("/dev/full")
    said = log_in_another_process(file, resource.RLIM_INFINITY)
    assert len(said) == 201 + 1
    assert "No space left on device" in said[1] or "No space left on device" in said[0]


def test_lines_of_several_processes_stay_whole(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    command = [sys.executable, "-c", LOG, str(file), str(resource.RLIM_INFINITY)]
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    lines = file.read_text().splitlines()
    assert len(lines) == 3 * 201
    assert all(line.endswith(("x" * 50, "there is room again")) and line.startswith("20") for line in lines)


def test_what_no_encoding_has_is_written_and_closing_twice_does_nothing(tmp_path: Path) -> None:
    from policyserver.server.processes.log_setup import LogFile

    handler = LogFile(tmp_path / "log")
    handler.emit(logging.LogRecord("a", logging.INFO, "", 0, "snowman \N{SNOWMAN}, half a pair \ud800", None, None))
    handler.close()
    handler.close()
    assert (tmp_path / "log").read_bytes().decode() == f"snowman \N{SNOWMAN}, half a pair \\ud800{os.linesep}"


ROTATE = """
import logging, sys
from pathlib import Path
from policyserver.server.config.log_config import LogConfig
from policyserver.server.processes.log_setup import log_to
log_to("INFO", Path(sys.argv[1]), LogConfig("json", standard_error=False, max_bytes=100_000))
for number in range(800):
    if number == 750:
        print(flush=True)
        sys.stdin.readline()
    logging.getLogger("server.some").info("line %d of\\ntwo %s", number, "x" * 50)
try:
    raise ValueError("the cause")
except ValueError:
    logging.getLogger("server.some").exception("it failed")
"""


def test_on_request_each_line_is_an_object_is_written_once_and_the_file_goes_on_in_another(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    command, pipe = [sys.executable, "-c", ROTATE, str(file)], subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) for _ in range(2)]
    for process in processes:  # else one could write all before the other begins, and nothing of it would be left
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
    assert [process.communicate(b"\n", timeout=60)[1] for process in processes] == [b"", b""]
    old = tmp_path / "server.log.1"
    assert {path.name for path in tmp_path.iterdir()} == {"server.log", "server.log.1"}
    assert old.stat().st_size >= 100_000, "the last lines of both are within these"
    lines = [json.loads(line) for path in (old, file) for line in path.read_text().splitlines()]
    assert {line["process"] for line in lines} == {process.pid for process in processes}
    assert lines[0].keys() == {"time", "level", "logger", "process", "message"}
    failed = [line for line in lines if line["level"] == "ERROR"]
    assert len(failed) == 2
    assert "ValueError: the cause" in failed[0]["exception"]
    for process in processes:  # what is left is whole, in order and without a gap
        numbers = [int(line["message"].split()[1]) for line in lines if line["process"] == process.pid and line["level"] == "INFO"]
        assert numbers == list(range(numbers[0], 800))


def test_a_log_that_may_grow_stays_one_file(tmp_path: Path) -> None:
    from policyserver.server.processes.log_setup import LogFile

    handler = LogFile(tmp_path / "log")
    for _ in range(100):
        handler.emit(logging.LogRecord("a", logging.INFO, "", 0, "x" * 1000, None, None))
    handler.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def record_of(number: int) -> logging.LogRecord:
    return logging.LogRecord("a", logging.INFO, "", 0, f"line {number} {'x' * 500}", None, None)


def test_a_log_is_put_aside_with_the_first_line_after_it_is_full(tmp_path: Path) -> None:
    from policyserver.server.processes.log_setup import LogFile

    handler = LogFile(tmp_path / "log", 1000)
    for number in range(9):
        handler.emit(record_of(number))
    handler.close()
    assert [(tmp_path / name).read_text().count("line") for name in ("log.1", "log")] == [2, 1]


@pytest.mark.timeout(60)
def test_a_file_that_can_not_be_renamed_holds_up_no_other_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from policyserver.server.processes.log_setup import LogFile

    first, second = LogFile(tmp_path / "log", 1000), LogFile(tmp_path / "log", 1000)  # each locks its own, as those of two processes
    aside = tmp_path / "log.1"
    aside.mkdir()
    for handler in (first, second) * 3:
        handler.emit(record_of(1))
    assert capsys.readouterr().err.count("lines are lost: Is a directory") == 2, "each tells it once"
    aside.rmdir()
    second.emit(record_of(2))
    first.emit(record_of(3))
    assert [line.split(" x")[0] for line in (tmp_path / "log").read_text().splitlines()] == [
        "2 lines are missing here, which could not be written",
        "line 2",
        "2 lines are missing here, which could not be written",
        "line 3",
    ]
    first.close()
    second.close()


@pytest.mark.timeout(60)
def test_nobody_waits_for_a_process_that_is_about_to_rename_the_file(tmp_path: Path) -> None:
    from policyserver.server.processes.log_setup import LogFile

    handler = LogFile(tmp_path / "log", 1000)
    with (tmp_path / "log").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for number in range(4):
            handler.emit(record_of(number))
    assert len((tmp_path / "log").read_text().splitlines()) == 4
    handler.emit(record_of(4))
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    handler.close()
