"""Settings are read and written by threads at the same time, though Python 3.11 can't make two syntax trees together."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import pytest

from policyserver.common import settings_declaration
from policyserver.common.settings_toml import dump_toml

THREADS = 8
TURNS = 10


@dataclass(frozen=True)
class Table:
    """A table of settings."""

    first: int = 1
    """Says what the first one is."""
    second: str = "text"
    """Says what the second one is."""
    third: tuple[float, ...] = (1.0, 2.0)
    """Says what the third one is."""


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Let threads take turns as often as can be, also while a syntax tree is made: the collector runs Python code in the midst of it."""

    def work(_phase: str, _info: dict[str, int]) -> None:
        sum(range(200))

    interval_s, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(50)
    gc.callbacks.append(work)
    try:
        yield
    finally:
        gc.callbacks.remove(work)
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval_s)


@pytest.mark.usefixtures("eager_switches")
def test_threads_write_files_that_document_themselves_at_the_same_time() -> None:
    together = Barrier(THREADS)

    def write(_number: int) -> str:
        together.wait()
        return dump_toml(Table(), comments=True)

    written = set()
    with ThreadPoolExecutor(THREADS) as threads:
        for _ in range(TURNS):
            settings_declaration._docstrings.cache_clear()
            written |= set(threads.map(write, range(THREADS)))
    assert len(written) == 1
    assert "# Says what the third one is." in written.pop()


def test_a_file_without_comments_needs_no_source_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_cls: type) -> dict[str, str]:
        raise AssertionError("a docstring was read")

    monkeypatch.setattr(settings_declaration, "_docstrings", read)
    assert dump_toml(Table()) == 'first = 1\nsecond = "text"\nthird = [1.0, 2.0]\n'
