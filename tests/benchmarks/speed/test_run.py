"""The command: what it measures, what it writes, and its status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from benchmarks.speed import page, results, run
from benchmarks.speed.case import Bar, Case
from benchmarks.speed.peers.table import MissingError
from benchmarks.speed.servers import Servers
from benchmarks.windows import Figures, Window


@contextmanager
def steady(servers: Servers) -> Iterator[Window]:
    def window(seconds: float) -> Figures:
        return {"steps_per_s": 100.0, "p50_ms": 1.0, "p99_ms": 2.0, "max_ms": seconds}

    yield window


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "bench")
    monkeypatch.setattr(results, "QUICK_RESULTS", tmp_path / "bench" / "quick")
    monkeypatch.setattr(page, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(run, "SWEEPS", ())
    (tmp_path / "docs").mkdir()
    return tmp_path


def have(monkeypatch: pytest.MonkeyPatch, *bars: Bar) -> None:
    case = Case("steady_one", "says", steady, bars, rounds=2)
    monkeypatch.setattr(run, "CASES", (case,))
    monkeypatch.setattr(run, "QUICK", (case,))
    monkeypatch.setattr(page, "CASES", (case,))


@pytest.mark.parametrize(("at_least", "status"), [(100, 0), (101, 1)])
def test_the_status_tells_whether_a_bar_was_missed(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at_least: float, status: int
) -> None:
    have(monkeypatch, Bar("steps_per_s", at_least=at_least), Bar("ratio_to_peer", at_least=50))
    assert run.main(["--quick"]) == status
    assert f"steps_per_s >= {at_least} {'MISSED' if status else 'met'}; ratio_to_peer >= 50 not measured" in capsys.readouterr().out
    assert (folders / "bench" / "quick" / "steady_one.json").exists()
    assert not list((folders / "docs").iterdir()), "a quick run leaves the page as it is"


def test_the_page_is_remade_without_measuring(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch)
    assert run.main(["--seconds", "7"]) == 0
    written = folders / "docs" / "benchmarks.md"
    first = written.read_text(encoding="utf-8")
    assert "2 x 7 s" in first
    written.unlink()
    monkeypatch.setattr(run, "measure_group", None)
    assert run.main(["--only-report"]) == 0
    assert written.read_text(encoding="utf-8") == first


def test_a_case_that_is_missing_says_why_and_leaves_what_was_measured_elsewhere(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(servers: Servers) -> AbstractContextManager[Window]:
        raise MissingError("no GPU")

    have(monkeypatch, Bar("ratio_to_peer", at_least=2))
    case = Case("on_a_gpu", "says", missing, (Bar("ratio_to_peer", at_least=2),))
    for module in (run, page):
        monkeypatch.setattr(module, "CASES", (*module.CASES, case))
    written = folders / "docs" / "benchmarks.md"
    assert run.main([]) == 0
    assert "- `on_a_gpu`: says. Not measured: no GPU." in written.read_text(encoding="utf-8")
    elsewhere = results.read(results.RESULTS, ["steady_one"])[0] | {"case": "on_a_gpu", "machine": "another", "device": "a GPU"}
    results.write(results.RESULTS, "on_a_gpu", elsewhere)
    capsys.readouterr()
    assert run.main([]) == 0
    assert "| on_a_gpu   | 100     |" in capsys.readouterr().out
    assert "Device: a GPU. Machine: another." in written.read_text(encoding="utf-8")


def test_a_page_of_nothing_is_refused(folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    have(monkeypatch)
    with pytest.raises(SystemExit):
        run.main(["--only-report"])
    assert "received none" in capsys.readouterr().err
