"""Of three serving nodes one is killed, one is cut off and healed, and the bars of a run are met: shortly, and with 10,000 episodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cluster.failing_nodes import SHORT, Plan, run, table

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]


@pytest.mark.parametrize("plan", [pytest.param(SHORT, id="a minute"), pytest.param(Plan(), id="three minutes")])
def test_what_is_acknowledged_is_recorded_while_nodes_fail(plan: Plan, made_of_namespaces: None, tmp_path: Path) -> None:
    outcome = run(plan, tmp_path)
    assert not outcome.missed, f"{table(outcome)}\n{(tmp_path / 'daemon.log').read_text()}"
