"""A Ray node that does not come up is cleared away, and another one is started in its place."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import ray
from ray._private import services

from policyserver.server.daemon.ray_start import RayProcess


def where_a_task_runs() -> int:
    return os.getpid()


@pytest.mark.slow  # Ray waits half a minute for a node that does not come up
@pytest.mark.timeout(400)
def test_a_node_that_does_not_come_up_is_cleared_away_and_another_one_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    died = tmp_path / "died"
    raylet = tmp_path / "raylet"
    raylet.write_text(f'#!/bin/sh\nif [ ! -e {died} ]; then touch {died}; exit 1; fi\nexec {services.RAYLET_EXECUTABLE} "$@"\n')
    raylet.chmod(0o700)
    monkeypatch.setattr(services, "RAYLET_EXECUTABLE", str(raylet))
    process = RayProcess()
    try:
        with caplog.at_level(logging.WARNING, "policyserver.server.daemon.ray_start"):
            process.start(num_cpus=1)
        assert died.exists(), "the first node's raylet did not live"
        assert [record.message for record in caplog.records if "trying again, 2 of 3" in record.message]
        assert ray.get(ray.remote(where_a_task_runs).remote()) != os.getpid()
        stores = []
        for one in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                if str(process.folder) in " ".join(one.cmdline()) and "gcs_server" in one.name():
                    stores.append(one)
        assert len(stores) == 1, "the first node's processes are gone"
    finally:
        process.stop()
    assert not process.folder.exists()
