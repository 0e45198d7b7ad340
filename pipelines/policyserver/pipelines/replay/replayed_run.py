"""The replay of a recorded run: whether it can be, how it is compared, and what came of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policyserver.common.settings import SettingsError, load
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.forecast_start import start_of
from policyserver.pipelines.market.catalog import file_hash
from policyserver.pipelines.market.files.faults import FileFaultError
from policyserver.pipelines.prices import PriceSource
from policyserver.pipelines.replay.comparison import DifferentError, NotReplayableError
from policyserver.pipelines.replay.event_file import EventFileError, EventLogReader
from policyserver.pipelines.replay.provenance import Provenance, data_files
from policyserver.pipelines.replay.replayer import RecordedPolicy, Replayer
from policyserver.pipelines.replay.run_folder import PIPELINE_FILE, RUN_FILE, START_FILE
from policyserver.pipelines.replay.turn import StepOutcome
from policyserver.pipelines.run import source_of


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a replay found."""

    folder: str
    exact: bool
    """Whether bits were compared; False: numbers within 1e-9, for versions, revision or processor differ."""
    reasons: tuple[str, ...]
    """Which of them do."""
    equal: bool
    turns: int
    """Turns of blocks that were replayed."""
    steps: int
    """Rewards that were compared."""
    actions: int
    """Actions of the policy among them; with --ask, those that were asked for again."""
    end: str
    """Why the event log ended: "end", "full" or "behind"; "killed": it has no end, for the run was killed or goes on."""
    cut_bytes: int
    """Bytes that a kill left behind the last whole flush."""
    episode: str | None = None
    """Episode of the first difference, like what follows."""
    step: int | None = None
    """Bars since the episode's first action."""
    field: str | None = None
    recorded: str | None = None
    replayed: str | None = None

    def text(self) -> str:
        """Return it as text."""
        how = "bit by bit" if self.exact else f"within 1e-9 ({'; '.join(self.reasons)})"
        rest = {
            "end": "",
            "killed": "; the log has no end: the run was killed, or goes on",
            "full": "; the event log was full",
            "behind": "; the event log fell behind",
        }
        lines = [f"{self.folder}: {self.steps:,} steps in {self.turns:,} turns, compared {how}{rest[self.end]}"]
        if self.equal:
            lines.append("equal")
        else:
            place = f"{self.episode or 'the block'}, step {'-' if self.step is None else self.step}"
            lines.append(f"different from {place}, {self.field}: recorded {self.recorded}, replayed {self.replayed}")
        return "\n".join(lines) + "\n"


class RecordedRun:
    """A part of a run in its folder, ready to be replayed."""

    def __init__(self, folder: Path) -> None:
        """Read everything but the events, and compare the files of bars with those of the run.

        Raises:
            NotReplayableError: Something is missing, damaged, or another one.
        """
        self._folder = folder
        try:
            self._then = Provenance.from_json((folder / RUN_FILE).read_text(encoding="utf-8"))
            self.config = _with_kept_state(load(PipelineConfig, folder / PIPELINE_FILE), folder, self._then)
            self.log = EventLogReader(folder)
            if self.config.episodes_seed != self._then.episodes_seed:
                expected, received = self._then.episodes_seed, self.config.episodes_seed
                raise NotReplayableError(f"{folder / PIPELINE_FILE}: expected the run's seed {expected}, received {received}")
            _require_same_data(self.config, self._then)
            self.source: PriceSource = source_of(self.config)
            self._start = start_of(self.config, self.source)
            self._here = Provenance.of(self.config)
        except (EventFileError, SettingsError, FileFaultError, OSError, ValueError) as error:
            raise NotReplayableError(" ".join(str(error).split())) from error

    def policy_versions(self) -> set[int]:
        """Return the versions of the policy that acted, as far as the answers told."""
        return {
            int(version)
            for batch in self.log.batches()
            for turn in batch
            if turn.decided
            for version in np.unique(turn.decided[1][turn.decided[0] == StepOutcome.POLICY])
        }

    def replay(self, policy: RecordedPolicy) -> ReplayResult:
        """Play the run again up to the first difference.

        Raises:
            NotReplayableError: A turn of the log can't be read.
        """
        reasons = tuple(self._then.differences(self._here))
        replayer = Replayer(self.config, self.source, policy, self.log.action, exact=not reasons, start=self._start)
        state, is_equal = self.log.state, True
        first: dict[str, Any] = {}
        try:
            for batch in self.log.batches():
                for turn in batch:
                    replayer.replay(turn)
                    policy.end(replayer.ended())
        except DifferentError as error:
            is_equal, difference = False, error.difference
            first = {"field": f"{difference.group}.{difference.field}"}
            first |= {"recorded": repr(difference.recorded), "replayed": repr(difference.replayed)}
            if difference.row is not None:
                episode, bar = replayer.episode_of(turn.block, difference.row)
                came_of_it = difference.group in ("marked", "fills", "orders")  # of the action before
                first |= {"episode": episode, "step": bar - came_of_it}
        return ReplayResult(
            str(self._folder),
            not reasons,
            reasons,
            is_equal,
            replayer.turns,
            replayer.steps,
            replayer.actions,
            state.end or "killed",
            state.cut_bytes,
            **first,
        )


def _with_kept_state(config: PipelineConfig, folder: Path, then: Provenance) -> PipelineConfig:
    """Return the settings with the state that the forecaster began with, as the folder has kept it.

    Raises:
        NotReplayableError: It is gone, or another one.
    """
    path, recorded = folder / START_FILE, then.forecast_state
    if recorded is None:
        return config
    if not path.is_file():
        raise NotReplayableError(f"{path}: expected what the run's forecaster began with, received none")
    if (found := file_hash(path)) != recorded.sha256:
        raise NotReplayableError(f"{path}: expected SHA-256 {recorded.sha256}, received {found}: the file has changed")
    return dataclasses.replace(config, regressor=dataclasses.replace(config.regressor, state=path, state_sha256=None))


def _require_same_data(config: PipelineConfig, then: Provenance) -> None:
    """Raise NotReplayableError unless the files of bars are those of the run, byte for byte."""
    for recorded in then.data:
        if not Path(recorded.path).is_file():
            raise NotReplayableError(f"{recorded.path}: expected the run's file of bars, received none")
    here = {file.path: file.sha256 for file in data_files(config.prices)}
    expected = {file.path: file.sha256 for file in then.data}
    for path in sorted(here | expected):
        if path not in expected:
            raise NotReplayableError(f"{path}: expected the run's files of bars alone, received this one, too")
        if here.get(path) != expected[path]:
            raise NotReplayableError(f"{path}: expected SHA-256 {expected[path]}, received {here.get(path)}: the file has changed")
