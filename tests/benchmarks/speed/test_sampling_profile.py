"""Folded stacks are summed up, and a profiler that is not there is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.speed.sampling_profile import LOOP, MISSING, profile_case, shares
from benchmarks.speed.servers import Servers
from policyserver.server.runner.serving_loop import ServingLoop

STEM = "Thread.run (threading.py:971);ServingLoop._run (server/runner/serving_loop.py:167)"
CORE = "EpisodeCore._flush (/w/.venv/lib/python3.11/site-packages/server/core.py:204)"
FOLDED = [
    f"{STEM};{CORE};dot (numpy/core.py:1) 60",
    f"{STEM};{CORE} 30",
    f"{STEM};{CORE};{CORE} 10",
    f"{STEM};EpollSelector.select (selectors.py:451) 100",
    "Thread.run (threading.py:971);Condition.wait (threading.py:295) 300",
]


def test_shares_are_of_the_loop_at_work_and_tell_a_function_itself_from_what_it_calls() -> None:
    found = shares(FOLDED)
    assert (found["samples"], found["at_work"]) == (200, 0.5)
    assert found["functions"] == [["dot (numpy/core.py:1)", 0.6, 0.6], ["EpisodeCore._flush (server/core.py:204)", 0.4, 1.0]]


def test_a_process_without_the_loop_has_no_shares() -> None:
    assert shares(FOLDED[-1:]) == {"samples": 0, "at_work": 0.0, "functions": []}


def test_the_loops_frame_is_a_function_that_there_is() -> None:
    assert f"{ServingLoop._run.__qualname__} " == LOOP


def test_a_profiler_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with Servers() as servers:
        assert profile_case("vector_256_mlp", servers, tmp_path, 1.0) == {"profile": "vector_256_mlp", "missing": MISSING}
