"""The page and its plots are made of the results that are there, and of nothing else."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import page, plots, results
from benchmarks.speed.alternation import result_of
from benchmarks.speed.cases import CASES
from benchmarks.speed.growth import SHOWN, SWEEPS

SVG = "{http://www.w3.org/2000/svg}"
WHERE = {"machine": "2 cores", "date": "2026-01-01"}
BY_NAME = {case.name: case for case in CASES}


def window(steps_per_s: float) -> dict[str, Any]:
    percentiles = [[0.0, 1.0], [50.0, 2.0], [99.0, 4.0], [100.0, 9.0]]
    return {"steps_per_s": steps_per_s, "p50_ms": 2.0, "p99_ms": 4.0, "max_ms": 9.0, "percentiles_ms": percentiles, "net": "MLP"}


def threads_64(missing: dict[str, str]) -> dict[str, Any]:
    case = BY_NAME["threads_64_mlp"]
    found = {case.name: [window(15_000.0)], str(case.floor): [window(10_000.0)], str(case.peer): [window(200.0)]}
    return result_of(case, found, 10.0, missing) | WHERE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a result of each kind that plots are made of."""
    results.write(tmp_path / "bench", "threads_64_mlp", threads_64({}))
    curve = {"size": [1, 4, 16], **{key: [10.0, 20.0, 40.0] for key in SHOWN}}
    sweep = {"sweep": "growth_clients", "says": "x", "quantity": "threads", "curves": {"learner idle": curve, "learner busy": curve}}
    results.write(tmp_path / "bench", "growth_clients", sweep | WHERE)
    timeline = {"second": [0, 1, 70], "p99_ms": [5.0, 6.0, 7.0], "max_ms": [8.0, 9.0, 50.0], "updates_s": [0.5, 1.5, 65.0]}
    results.write(
        tmp_path / "bench",
        "longest_call_64_mlp",
        result_of(BY_NAME["longest_call_64_mlp"], {"longest_call_64_mlp": [window(1.0)]}, 300.0, {}) | WHERE | {"timeline": timeline},
    )
    return tmp_path / "bench"


def picture(docs: Path, name: str) -> ElementTree.Element:
    return ElementTree.fromstring((docs / "benchmarks" / f"{name}.svg").read_text(encoding="utf-8"))


def test_the_page_shows_every_plot_whose_result_is_there_and_no_other(folder: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    page.write(folder, docs)
    text = (docs / "benchmarks.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\((benchmarks/[a-z0-9_]+\.svg)\)", text)
    assert linked == ["benchmarks/latency_by_percentile.svg", "benchmarks/p99_over_time.svg", "benchmarks/growth_clients.svg"]
    assert all((docs / path).exists() for path in linked)
    assert "threads_64_mlp" in text
    assert "ratio_to_peer >= 50 met" in text
    assert "vector_256" not in text[: text.index(page.FINDINGS_TITLE)]


def test_the_page_says_the_peers_figures_or_why_there_are_none() -> None:
    assert "steps/s 200" in page.markdown([threads_64({})], [], [])
    text = page.markdown([threads_64({"policy_server_input": "Python is 3.13"})], [], [])
    assert "Not measured: Python is 3.13" in text
    assert "ratio_to_peer >= 50 not measured" in text


def test_the_page_says_of_a_result_where_it_was_measured_if_that_was_elsewhere() -> None:
    elsewhere = threads_64({}) | {"case": "on_a_gpu", "machine": "99 cores", "device": "some GPU"}
    text = page.markdown([threads_64({}), elsewhere, threads_64({})], [], [])
    assert "\nMachine: 2 cores;" in text
    assert [line for line in text.splitlines() if "99 cores" in line] == [line for line in text.splitlines() if "some GPU" in line]
    assert "- `on_a_gpu`: 64 blocking threads of one client, learner idle; 1 x 10 s. Net: MLP. Device: some GPU. Machine: 99 cores." in text


def test_the_page_says_that_nothing_was_profiled_and_why() -> None:
    assert "Not measured: run `make bench` with `--profile`." in page.markdown([threads_64({})], [], [])
    text = page.markdown([threads_64({})], [], [{"profile": "threads_64_mlp", "missing": "py-spy is not on the PATH"}])
    assert "Not measured: py-spy is not on the PATH." in text
    text = page.markdown(
        [threads_64({})],
        [],
        [
            {
                "profile": "threads_64_mlp",
                "samples": 1_000,
                "at_work": 0.9,
                "threads_cpu_s": [9.0, 2.5],
                "functions": [["decode (wire.py)", 0.25, 0.5]],
            }
        ],
    )
    assert "| `decode (wire.py)` | 25.0%     | 50.0%              |" in text


def test_a_sweep_is_drawn_with_a_line_for_each_curve_in_each_panel(folder: Path, tmp_path: Path) -> None:
    plots.write(folder, tmp_path / "benchmarks")
    root = picture(tmp_path, "growth_clients")
    strokes = [path.get("style", "") for path in root.iter(f"{SVG}path")]
    assert sum("stroke: #0b6e99" in stroke for stroke in strokes) == len(plots.SHOWN) + 1, "and one in the legend"
    assert {*plots.SHOWN.values(), "threads", "learner idle", "learner busy"} <= {text.text for text in root.iter(f"{SVG}text")}


def test_the_first_minute_has_its_updates_and_none_of_later(folder: Path) -> None:
    whole, first = plots.over_time(results.read(folder, ["longest_call_64_mlp"]))
    assert (whole.marks, first.marks) == ((), (0.5, 1.5))
    assert [len(curve.points) for panel in (whole, first) for curve in panel.curves] == [3, 3, 2, 2]


def test_latency_by_percentile_gives_each_nine_the_same_room() -> None:
    (panel,) = plots.by_percentile([{"case": "c", "percentiles_ms": [[0.0, 1.0], [90.0, 1.0], [99.0, 1.0], [99.9, 1.0], [100.0, 5.0]]}])
    assert panel.x.is_logarithmic
    assert [x for x, _ in panel.curves[0].points] == pytest.approx([1.0, 10.0, 100.0, 1_000.0])
    assert panel.x.text(1_000.0) == "99.9 %"


def test_every_sweep_has_a_plot_and_its_curves_have_the_same_sizes() -> None:
    assert {sweep.name for sweep in SWEEPS} <= {plot.name for plot in plots.PLOTS}
    for sweep in SWEEPS:
        sizes = {tuple(point.size for point in points) for points in sweep.curves.values()}
        assert len(sizes) == 1
