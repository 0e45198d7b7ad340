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

from policyserver.common.whole_file import writing_whole

logger = logging.getLogger(__name__)

JOB_FILE = "ray_job.json"
_MAX_BYTES = 1024
_JOB = re.compile(r"[0-9a-f]{8}")
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class RayJob:
    """A driver, as Ray calls it, and the run that it had."""

    cluster: str
    job: str
    folder: int
    """Inode of the run folder: what is in a copy of it is about another run's daemon, which may live."""

    @classmethod
    def of_this_process(cls, run_folder: Path) -> RayJob:
        """Describe this process; Ray is joined."""
        import ray
        from ray._private.worker import global_worker

        return cls(global_worker.node.cluster_id.hex(), ray.get_runtime_context().get_job_id(), run_folder.stat().st_ino)


def take_over(run_folder: Path) -> None:
    """End the actors that an earlier daemon of this run has in this cluster, and write down that this process is the run's daemon now.

    Args:
        run_folder: The run, which this process owns.
    """
    path, this = run_folder / JOB_FILE, RayJob.of_this_process(run_folder)
    before = _read(path)
    if before is not None and (before.cluster, before.folder) == (this.cluster, this.folder) and before.job != this.job:
        _end_actors(before.job)
    with writing_whole(path) as part:  # a crash in between would leave a successor without the job whose actors it has to end
        part.write_text(json.dumps(asdict(this)), encoding="ascii")


def _read(path: Path) -> RayJob | None:
    """Return what is written down; None for a file that is missing or no such file."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        with path.open("rb") as file:
            parsed = json.loads(file.read(_MAX_BYTES))
        found = RayJob(str(parsed["cluster"]), str(parsed["job"]), int(parsed["folder"]))
        if _JOB.fullmatch(found.job):
            return found
    return None


def _end_actors(job: str) -> None:
    """End a driver's actors for good, not to be restarted by Ray."""
    import grpc
    import ray
    from ray._private.grpc_utils import init_grpc_channel
    from ray._private.state import actors
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    left = [actor for actor, known in actors(job_id=ray.JobID.from_hex(job)).items() if known["State"] != "DEAD"]
    if not left:
        return
    try:
        with init_grpc_channel(ray.get_runtime_context().gcs_address) as channel:
            service = gcs_service_pb2_grpc.ActorInfoGcsServiceStub(channel)
            for actor in left:
                wanted = gcs_service_pb2.KillActorViaGcsRequest(actor_id=bytes.fromhex(actor), force_kill=True, no_restart=True)
                service.KillActorViaGcs(wanted, timeout=_TIMEOUT_S)
    except grpc.RpcError as error:
        logger.warning("actors of the daemon that had this run before can't be ended, so Ray does that within about a minute: %s", error)
        return
    logger.warning(
        "ended %d actors of the daemon that had this run before: their open episodes and the steps that waited in them are lost", len(left)
    )
