"""Both learners play every seed for as many steps, and the page pairs their returns by seed; an interrupted half of a pair is left out."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from benchmarks.market import learners
from benchmarks.market.learners import RLLIB_SERVER
from benchmarks.market.page import write_part
from benchmarks.market.variants import TITLE as FIRST_TITLE
from policyserver.monitoring.store.store import EmbeddedStore
from policyserver.pipelines.demo.setup import DEMO_SERVER, STORE_FILE, DemoConfig
from policyserver.pipelines.runtime.stop_signals import StopSignals
from tests.benchmarks.market.demos import Demos

LAST_TENTH: dict[tuple[Path, int | None], float] = {
    (DEMO_SERVER, 0): 6.0,
    (RLLIB_SERVER, 0): 5.0,
    (DEMO_SERVER, 1): 7.0,
    (RLLIB_SERVER, 1): 4.0,
}


def leave(options: DemoConfig, folder: Path) -> dict[str, Any]:
    EmbeddedStore(folder / STORE_FILE).close(30.0)
    return {
        "seconds": 20.0 if options.server == DEMO_SERVER else 500.0,
        "return_mean": LAST_TENTH.get((options.server, options.seed), 6.5),
    }


def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted_at: int | None = None) -> tuple[Demos, str, str]:
    demos, out = Demos(tmp_path, leave, interrupted_at), io.StringIO()
    monkeypatch.setattr(learners, "run_demo", demos)
    learners.compare_learners(tmp_path / "docs", 5_000, out, StopSignals())
    return demos, (tmp_path / "docs" / "learning.md").read_text(encoding="utf-8"), out.getvalue()


def test_both_learners_get_every_seed_and_as_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demos, text, _ = compared(tmp_path, monkeypatch)
    assert [(asked.seed, asked.server) for asked in demos.asked] == [
        (s, server) for s in range(3) for server in (DEMO_SERVER, RLLIB_SERVER)
    ]
    assert {asked.steps for asked in demos.asked} == {5_000}
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| the demo's", "| RLlib's"))]
    assert [(row[0].strip("| "), row[1], row[2]) for row in rows] == [
        (title, str(seed), "5,000") for seed in range(3) for title in ("the demo's", "RLlib's defaults")
    ]
    assert 'make learn ARGS="--learners --steps 5000"' in text
    ElementTree.fromstring((tmp_path / "docs" / "learners.svg").read_text())


def test_the_difference_is_paired_by_seed_and_has_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text, _ = compared(tmp_path, monkeypatch, interrupted_at=5)
    assert "last tenth +2.00 ± 1.00" in text, "1 and 3 more"
    assert "25.0, 25.0 times the seconds" in text


def test_an_interrupted_comparison_keeps_the_seeds_that_both_have_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demos, text, said = compared(tmp_path, monkeypatch, interrupted_at=4)
    assert len(demos.asked) == 4
    assert "| RLlib's defaults | 0 |" in text
    assert "| the demo's | 1 |" not in text, "its counterpart did not finish"
    assert "interrupted" in said


def test_each_part_of_the_page_is_made_anew_and_the_other_left_alone(tmp_path: Path) -> None:
    for title, text in (
        ("## B", "## B\n\nold\n"),
        (FIRST_TITLE, f"{FIRST_TITLE}\n\nfirst\n"),
        ("## C", "## C\n\nc\n"),
        ("## B", "## B\n\nnew\n"),
    ):
        write_part(tmp_path, title, text)
    assert (tmp_path / "learning.md").read_text() == f"{FIRST_TITLE}\n\nfirst\n\n## B\n\nnew\n\n## C\n\nc\n"
