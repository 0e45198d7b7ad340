"""What the process that learns is told: its share of the machine, when it saves, and what it records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Interval

from policyserver.common.settings import Config
from policyserver.monitoring.page.listen import check_page_address
from policyserver.monitoring.recording import RecordingConfig


@dataclass(frozen=True)
class CheckpointsConfig(Config):
    """When the policy is saved, and how much of it is kept."""

    folder: Path | None = None
    """Where checkpoints lie. Unset: `checkpoints` in the run folder."""
    keep: Annotated[int, Ge(1)] = 3
    """Newest checkpoints kept."""
    every_iterations: Annotated[int, Ge(0)] = 10
    """Training iterations from one checkpoint to the next; one more is written when the server stops. 0: only then."""
    restore: bool = True
    """Whether to go on from the newest whole checkpoint, if there is one."""


@dataclass(frozen=True)
class RollbackConfig(Config):
    """What becomes of what was collected when a checkpoint is rolled back to."""

    keep_replay: bool = True
    """Whether a replay buffer, and steps that wait for it, stay. Without a replay buffer waiting steps are always dropped."""


@dataclass(frozen=True)
class LearnerConfig(Config):
    """The process that learns: its share of the machine, and what it does about errors and the end."""

    enabled: bool = True
    """Whether there is a learner. Without one a checkpoint is served as it is, in one process and without Ray."""
    threads: Annotated[int, Ge(1)] = 1
    """Threads of the tensor operations of the learner, or of each of several."""
    niceness: Annotated[int, Interval(ge=0, le=19)] = 5
    """Niceness of the daemon and of learners in processes of their own, and of their sessions where these are their own; the serving actors
    run at 0, so that an update doesn't delay an action."""
    max_failures: Annotated[int, Ge(1)] = 3
    """Training iterations that may fail in a row; then the server writes a checkpoint and exits with an error."""
    retry_backoff_s: Annotated[float, Ge(0)] = 1.0
    """Seconds before a failed iteration is tried again, doubled with each failure in a row."""
    drain_timeout_s: Annotated[float, Ge(0)] = 15.0
    """Seconds a stopping server gives the running iteration to finish before it saves and leaves. A checkpoint that is being written is
    always finished."""


@dataclass(frozen=True)
class ServerRecordingConfig(RecordingConfig):
    """What the server records about its own training, and where."""

    store: Path | None = None
    """File of the embedded store. Unset: `store.sqlite` in the run folder."""
    enabled: bool = True
    """Whether training iterations are recorded at all."""
    page: str | None = None
    """HOST:PORT of the live page of the store, e.g. "127.0.0.1:9980". Unset: it is not served, so that the server takes no port unasked,
    and two servers on one machine do not meet at one. Beyond loopback it has `listen`'s certificate and key, and wants its token."""

    def _check(self) -> None:
        super()._check()
        if self.page is None:
            return
        check_page_address("page", self.page)
        if not self.enabled:
            raise ValueError("page: expected recording.enabled = true with it, for the page shows what is recorded")
