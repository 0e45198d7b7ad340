"""Peers: processes that measure a window for each line, and what is said when one cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.speed.peers import table
from benchmarks.speed.peers.line_process import line_process
from benchmarks.speed.peers.table import OLD_SERVER, PEERS, RUNNER_MLP, MissingError

BUILD = table.HERE / "build.sh"
ECHO = """
import sys
print("chatter of a library")
print('BENCH {"ready": true}', flush=True)
for line in sys.stdin:
    print('BENCH {"steps_per_s": %s}' % (10 * float(line)), flush=True)
"""


def test_a_line_process_answers_a_window_for_each_line_and_ends_with_its_input(tmp_path: Path) -> None:
    with line_process([sys.executable, "-c", ECHO], tmp_path / "log") as window:
        assert [window(seconds)["steps_per_s"] for seconds in (1.0, 2.5)] == [10.0, 25.0]


def test_a_line_process_that_ends_instead_of_answering_is_an_error_with_its_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no module named ray')"]
    with pytest.raises(RuntimeError, match="status 1:\nno module named ray"), line_process(command, tmp_path / "log"):
        pass


@pytest.mark.parametrize(("reason", "said"), [(None, "not built: run `make bench-peers`"), ("Python is 3.13\n", "Python is 3.13")])
def test_an_old_server_that_is_not_built_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str | None, said: str) -> None:
    monkeypatch.setattr(table, "OLD_PYTHON", tmp_path / "python")
    monkeypatch.setattr(table, "OLD_REASON", tmp_path / "reason")
    if reason:
        (tmp_path / "reason").write_text(reason, encoding="utf-8")
    with pytest.raises(MissingError, match=said), PEERS[OLD_SERVER].running():
        pass


def test_an_old_server_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no module named ray >&2\nexit 3\n", encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(table, "OLD_PYTHON", python)
    monkeypatch.setattr(table, "BUILD", tmp_path)
    with pytest.raises(MissingError, match=r"(?s)did not start.*status 3.*no module named ray"), PEERS[OLD_SERVER].running():
        pass


def test_an_interpreter_that_the_old_server_cannot_have_is_said_and_is_no_failure(tmp_path: Path) -> None:
    script = tmp_path / "benchmarks" / "speed" / "peers" / "build.sh"
    script.parent.mkdir(parents=True)
    script.write_bytes(BUILD.read_bytes())
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 3.13\n", encoding="utf-8")
    python.chmod(0o755)
    environment = os.environ | {"PYTHON": str(python), "TORCH_CPU_INDEX": "nowhere"}
    done = subprocess.run(["bash", str(script)], env=environment, stderr=subprocess.PIPE, text=True, timeout=60, check=True)
    reason = (tmp_path / "build" / "peers" / "policy_server_input.missing").read_text(encoding="utf-8")
    assert "is 3.13" in reason
    assert reason in done.stderr


@pytest.mark.slow
def test_rllibs_own_runner_gives_its_throughput() -> None:
    with PEERS[RUNNER_MLP].running() as window:
        assert window(0.5)["steps_per_s"] > 100
