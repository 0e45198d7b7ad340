"""Ends the serving actors of a daemon whose run this one has taken over.

Ray keeps them until it gives up the machine of their driver, which takes a minute; until then they hold their nodes' room and ports. A run
folder has one owner, so its owner may end what an earlier one has left.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

JOB_FILE = "ray_job.json"
_MAX_BYTES = 1024
_HEX = re.compile(r"[0-9a-f]{1,128}")
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class RayJob:
    """What Ray calls a driver."""

    cluster: str
    job: str

    @classmethod
    def of_this_process(cls) -> RayJob:
        """Describe this process; Ray is joined."""
        import ray
        from ray._private.worker import global_worker

        return cls(global_worker.node.cluster_id.hex(), ray.get_runtime_context().get_job_id())


def take_over(run_folder: Path) -> None:
    """End the actors that an earlier daemon of this run has in this cluster, and write down that this process is the run's daemon now.

    Args:
        run_folder: The run, which this process owns.
    """
    path, this = run_folder / JOB_FILE, RayJob.of_this_process()
    before = _read(path)
    if before is not None and before.cluster == this.cluster and before.job != this.job and (ended := _end_actors(before.job)):
        logger.warning(
            "ended %d actors of the daemon that had this run before: their open episodes and the steps that waited in them are lost", ended
        )
    path.write_text(json.dumps(asdict(this)), encoding="ascii")


def _read(path: Path) -> RayJob | None:
    """Return what is written down; None for a file that is missing or no such file."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        with path.open("rb") as file:
            parsed = json.loads(file.read(_MAX_BYTES))
        found = RayJob(str(parsed["cluster"]), str(parsed["job"]))
        if _HEX.fullmatch(found.cluster) and _HEX.fullmatch(found.job):
            return found
    return None


def _end_actors(job: str) -> int:
    """End a driver's actors for good, not to be restarted by Ray; returns how many there were."""
    import ray
    from ray._private.grpc_utils import init_grpc_channel
    from ray._private.state import actors
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    left = [actor for actor, known in actors(job_id=ray.JobID.from_hex(job)).items() if known["State"] != "DEAD"]
    if left:
        with init_grpc_channel(ray.get_runtime_context().gcs_address) as channel:
            service = gcs_service_pb2_grpc.ActorInfoGcsServiceStub(channel)
            for actor in left:
                wanted = gcs_service_pb2.KillActorViaGcsRequest(actor_id=bytes.fromhex(actor), force_kill=True, no_restart=True)
                service.KillActorViaGcs(wanted, timeout=_TIMEOUT_S)
    return len(left)
