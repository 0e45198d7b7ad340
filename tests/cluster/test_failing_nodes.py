"""The short form of the failing nodes: one of three serving nodes is killed, one cut off and healed, and the bars of a run are met."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cluster.failing_nodes import SHORT, run, table

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(600)]


def test_what_is_acknowledged_is_recorded_while_nodes_fail(made_of_namespaces: None, tmp_path: Path) -> None:
    outcome = run(SHORT, tmp_path)
    assert not outcome.missed, f"{table(outcome)}\n{(tmp_path / 'daemon.log').read_text()}"
