"""No program of ours makes files that others could write, whatever umask it was started with."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from policyserver.monitoring import __main__ as monitoring
from policyserver.pipelines import __main__ as pipelines
from policyserver.server import __main__ as server


@pytest.fixture(autouse=True)
def open_to_everybody() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    before, switch_interval_s = os.umask(0), sys.getswitchinterval()
    yield
    os.umask(before)
    sys.setswitchinterval(switch_interval_s)
    logging.captureWarnings(False)
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (server.main, ["serve", "--config", "nowhere.toml"]),
        (pipelines.main, ["run", "--config", "nowhere.toml"]),
        (monitoring.main, ["export", "--store", "nowhere.sqlite"]),
    ],
)
def test_every_program_closes_what_it_will_make_to_others(main: Callable[[list[str]], int], arguments: list[str]) -> None:
    assert main(arguments) == 2
    assert os.umask(0o077) == 0o022


@pytest.mark.long
def test_a_run_folder_and_what_lies_in_it_is_for_its_owner_to_write(tmp_path: Path) -> None:
    run_folder = tmp_path / "runs" / "one"
    (tmp_path / "store.sqlite").mkdir()  # which ends the start when the run's files are there, and before Ray
    options = ["--run_folder", str(run_folder), "--recording.store", str(tmp_path / "store.sqlite"), "--listen.address", "127.0.0.1:0"]
    assert server.main(["serve", *options]) == 2
    made = [run_folder.parent, run_folder, *run_folder.rglob("*")]
    assert {"server.log", "server.toml", "lock", "checkpoints"} <= {path.name for path in made}
    assert [path for path in made if path.stat().st_mode & 0o022] == []
