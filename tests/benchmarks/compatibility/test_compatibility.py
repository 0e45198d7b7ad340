"""The matrix itself: that its cells run for real, that a failure is seen, and that no cell of the page is green without a result."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compatibility.cells import ACTIONS, ALGORITHMS, CELLS, ROWS, Cell
from benchmarks.compatibility.report import ReportError, Run, cells_of, listing, markdown
from benchmarks.compatibility.run import PAGE
from benchmarks.compatibility.run_cells import Worker, WorkerError, run_cells

RUN = Run("make compatibility", "2026-01-01", 60.0, {"ray": "1", "torch": "2", "gymnasium": "3", "ours": "4"}, "a machine")
EVIDENCE: dict[str, Any] = {
    "actions": 9,
    "actions_logged": 2,
    "episodes_terminated": 3,
    "episodes_truncated": 1,
    "steps_sampled": 10,
    "updates": 2,
    "versions": [0, 2],
    "losses": {"total_loss": 0.5},
    "policy": "VectorizedPolicy",
}
BROKEN_WORKER = """
import sys
from policyserver.common.acting.action_form import ActionForm
from benchmarks.compatibility import worker

right = ActionForm.to_environment
ActionForm.to_environment = lambda self, actions: right(self, actions) + 100
worker.main(sys.argv[1])
"""


def cell(name: str) -> Cell:
    return next(cell for cell in CELLS if cell.name == name)


def green() -> dict[str, dict[str, Any]]:
    return {cell.name: {"cell": cell.name, "outcome": "yes", "evidence": EVIDENCE} for cell in CELLS}


# The page ----------------------------------------------------------------------------------------------------------------------------


def test_every_combination_is_a_cell_of_its_own() -> None:
    assert len({cell.name for cell in CELLS}) == len(CELLS) == len(ALGORITHMS) * len(ACTIONS) * len(ROWS)
    assert len(set(listing())) == len(CELLS)
    for each in CELLS:
        each.server_config()


def test_the_committed_page_shows_the_cells_as_they_are_defined() -> None:
    assert cells_of(PAGE.read_text(encoding="utf-8")) == listing(), "run `make compatibility`"


def test_a_page_shows_every_cell_with_its_outcome_and_its_note() -> None:
    results = green()
    results["PPO-Box-vector_mlp"] = {"cell": "PPO-Box-vector_mlp", "outcome": "no", "error": "ValueError: odd", "rllib": "works"}
    for name in ("DQN-Box-vector_mlp", "DQN-Box-vector_lstm"):
        results[name] = {"cell": name, "outcome": "not in RLlib", "error": "x", "rllib": "AttributeError: n", "limit": "Discrete alone"}
    page = markdown(results, RUN)
    assert cells_of(page) == listing()
    assert "282 yes, 1 no, 2 not in RLlib" in page
    assert page.count("**no** (1)") == 1
    assert "1. `ValueError: odd`; RLlib alone: it works\n" in page
    assert page.count("not in RLlib (2)") == 2
    assert "2. Discrete alone: `AttributeError: n`\n" in page


@pytest.mark.parametrize(
    "change",
    [
        {"actions": 0},
        {"actions_logged": 0},
        {"episodes_truncated": 0},
        {"steps_sampled": 0},
        {"updates": 1},
        {"versions": [3, 4]},
        {"versions": []},
        {"losses": {}},
        {"losses": {"total_loss": float("nan")}},
        {"policy": ""},
    ],
    ids=str,
)
def test_a_green_cell_without_all_that_makes_it_green_is_refused(change: dict[str, Any]) -> None:
    results = green()
    results["SAC-Box-image_cnn"]["evidence"] = EVIDENCE | change
    with pytest.raises(ReportError, match="SAC-Box-image_cnn"):
        markdown(results, RUN)


def test_a_cell_without_a_result_of_its_own_is_refused() -> None:
    results = green()
    one = results.pop("APPO-Discrete-nested_own")
    with pytest.raises(ReportError, match="APPO-Discrete-nested_own: expected a result"):
        markdown(results, RUN)
    with pytest.raises(ReportError, match="APPO-Discrete-nested_own: expected its own result"):
        markdown(results | {"APPO-Discrete-nested_own": results["PPO-Discrete-nested_own"]}, RUN)
    with pytest.raises(ReportError, match="PPO-unheard_of"):
        markdown(results | {one["cell"]: one, "PPO-unheard_of": one}, RUN)


def test_only_a_failure_of_rllibs_own_that_is_understood_is_shown_as_rllibs() -> None:
    for missing in ("limit", "rllib"):
        results = green()
        name = "SAC-Box-vector_lstm"
        results[name] = {"cell": name, "outcome": "not in RLlib", "error": "x", "rllib": "y", "limit": "z"}
        del results[name][missing]
        with pytest.raises(ReportError, match=name):
            markdown(results, RUN)


# Workers -----------------------------------------------------------------------------------------------------------------------------

HANGING = """
import sys, time
print("{}", flush=True)
for name in sys.stdin:
    if "mlp" in name:
        time.sleep(1e6)
    print('{"ok": 1}', flush=True)
"""


@pytest.mark.process
def test_a_cell_that_hangs_is_ended_and_the_next_one_runs_in_a_new_process(tmp_path: Path) -> None:
    cells = [cell("PPO-Box-vector_mlp"), cell("PPO-Box-vector_lstm")]
    results = run_cells(cells, tmp_path, 1, command=(sys.executable, "-c", HANGING), timeout_s=5.0)
    assert results["PPO-Box-vector_mlp"]["outcome"] == "no"
    assert results["PPO-Box-vector_mlp"]["error"] == "timed out after 5 s"
    assert results["PPO-Box-vector_lstm"] == {"ok": 1}
    assert json.loads((tmp_path / "PPO-Box-vector_mlp.json").read_text()) == results["PPO-Box-vector_mlp"]


@pytest.mark.process
def test_a_worker_that_dies_says_so(tmp_path: Path) -> None:
    worker = Worker(
        tmp_path, 0, (sys.executable, "-c", "import os, time; print('{}', flush=True); input(); os.close(1); time.sleep(0.5); os._exit(3)")
    )
    with pytest.raises(WorkerError, match="ended with status 3"):
        worker.run("PPO-Box-vector_mlp")
    worker.close()


@pytest.mark.process
def test_a_worker_that_does_not_start_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"no worker starts: the process ended with status 1; see .*worker-0.log"):
        run_cells(CELLS, tmp_path, 1, command=(sys.executable, "-c", "raise SystemExit(1)"))


# Cells -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cells_run_for_real(tmp_path: Path) -> None:
    cells = [cell("PPO-Discrete-nested_lstm"), cell("SAC-Box-vector_connector"), cell("SAC-MultiDiscrete-vector_mlp")]
    results = run_cells(cells, tmp_path, 1)
    lstm, connector, unsupported = (results[cell.name] for cell in cells)
    assert lstm["outcome"] == "yes", lstm
    assert connector["outcome"] == "yes", connector
    assert connector["evidence"]["policy"] == "ConnectorPolicy"
    assert unsupported["outcome"] == "not in RLlib", unsupported
    assert "SAC only supports" in unsupported["rllib"]
    assert cells_of(markdown(green() | results, RUN)) == listing()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_that_gives_wrong_actions_makes_a_red_cell(tmp_path: Path) -> None:
    (result,) = run_cells([cell("PPO-Box-doubles_mlp")], tmp_path, 1, command=(sys.executable, "-c", BROKEN_WORKER)).values()
    assert result["outcome"] == "no"
    assert "expected an action in Box" in result["error"]
    assert result["rllib"] == "works"
