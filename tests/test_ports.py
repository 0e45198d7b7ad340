"""A port that one process of tests took is no other's, though nothing listens there yet."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests import ports

ROOT = Path(__file__).parents[1]
TAKES_ONE = "import sys; from tests import ports; print(ports.free_ports(1)[0], flush=True); sys.stdin.read()"


@pytest.mark.process
def test_two_processes_take_no_port_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", TAKES_ONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as other:
        assert other.stdout is not None
        taken = int(other.stdout.readline())
        monkeypatch.setattr(ports, "_positions", itertools.count(ports._CANDIDATES.index(taken)))
        assert ports.free_ports(1) != [taken]
        assert taken not in ports.free_ports(3)
        other.communicate(timeout=60.0)


def test_a_process_that_ends_while_it_is_looked_at_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def connections(process: psutil.Process, kind: str) -> list[SimpleNamespace]:
        asked.append(process.pid)
        if len(asked) == 1:
            raise psutil.NoSuchProcess(process.pid)
        return [SimpleNamespace(status=psutil.CONN_LISTEN, laddr=SimpleNamespace(port=7))]

    monkeypatch.setattr(psutil.Process, "children", lambda process, recursive: [psutil.Process()])
    monkeypatch.setattr(psutil.Process, "net_connections", connections)
    assert ports.listens(psutil.Process().pid, 7)
    assert len(asked) == 2
