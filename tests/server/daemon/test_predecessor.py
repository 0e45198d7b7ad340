"""What an earlier daemon of a run has left in the cluster is ended for good; what a copied run folder names is not touched."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

from policyserver.server.daemon.predecessor import JOB_FILE, RayJob, take_over

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.usefixtures("private_ray"), pytest.mark.timeout(300)]

DRIVER = """
import json, os, sys
import ray
ray.init(address=sys.argv[1], log_to_driver=False)
@ray.remote(max_restarts=-1, num_cpus=0)
class Serving:
    def process(self):
        return os.getpid()
serving = Serving.remote()
print(json.dumps([ray.get_runtime_context().get_job_id(), ray.get(serving.process.remote())]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def predecessor() -> Iterator[tuple[str, psutil.Process]]:
    """Another driver of the same Ray, which lives, as one of a machine that is cut off may; yields its job and its actor's process."""
    command = [sys.executable, "-c", DRIVER, ray.get_runtime_context().gcs_address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        job, process = json.loads(driver.stdout.readline())
        yield job, psutil.Process(process)
        driver.kill()


def named(job: str, run_folder: Path) -> None:
    """Write a predecessor down in a run folder."""
    this = RayJob.of_this_process(run_folder)
    (run_folder / JOB_FILE).write_text(json.dumps({"cluster": this.cluster, "job": job, "folder": this.folder}))


def test_its_actors_are_ended_and_not_restarted(tmp_path: Path, predecessor: tuple[str, psutil.Process]) -> None:
    from ray._private.state import actors

    job, actor = predecessor
    named(job, tmp_path)
    take_over(tmp_path)
    actor.wait(60.0)
    deadline = time.monotonic() + 60.0
    while (states := {known["State"] for known in actors(job_id=ray.JobID.from_hex(job)).values()}) != {"DEAD"}:
        assert time.monotonic() < deadline, states
        time.sleep(0.05)
    assert json.loads((tmp_path / JOB_FILE).read_text())["job"] == ray.get_runtime_context().get_job_id()


@pytest.mark.parametrize("text", ["", "[1]", '{"cluster": "ab", "job": "01000000", "folder": 1}', '{"cluster": 1}', '{"job": "../x"}'])
def test_what_is_no_file_of_this_cluster_is_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / JOB_FILE).write_text(text)
    take_over(tmp_path)
    assert json.loads((tmp_path / JOB_FILE).read_text())["job"] == ray.get_runtime_context().get_job_id()


def test_the_daemon_of_a_run_whose_folder_was_copied_keeps_its_actors(tmp_path: Path, predecessor: tuple[str, psutil.Process]) -> None:
    job, actor = predecessor
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    named(job, original)
    shutil.copytree(original, copy)
    take_over(copy)
    with pytest.raises(psutil.TimeoutExpired):
        actor.wait(2.0)
