"""Folded stacks are summed up, and a profiler that is not there is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.sampling_profile import MISSING, profile_case, shares

FOLDED = [
    "run (asyncio/runners.py);step (/w/.venv/lib/python3.11/site-packages/server/core.py);dot (numpy/core.py) 60",
    "run (asyncio/runners.py);step (/w/.venv/lib/python3.11/site-packages/server/core.py) 30",
    "run (asyncio/runners.py);run (asyncio/runners.py) 10",
]


def test_shares_tell_a_function_itself_from_what_it_calls() -> None:
    found = shares(FOLDED)
    assert found["samples"] == 100
    assert found["functions"] == [
        ["dot (numpy/core.py)", 0.6, 0.6],
        ["step (server/core.py)", 0.3, 0.9],
        ["run (asyncio/runners.py)", 0.1, 1.0],
    ]


def test_a_profiler_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert profile_case("vector_256_mlp", tmp_path, 1.0) == {"profile": "vector_256_mlp", "missing": MISSING}
