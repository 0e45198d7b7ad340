"""The record of a run in its folder: made before its first step, closed after its last."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np

from policyserver.common.file_lock import FileLock
from policyserver.common.settings import SettingsError, dump_toml
from policyserver.common.whole_file import writing_whole
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.forecast.state_file import ForecastState, read_state, state_path
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.prices.config import make_slots
from policyserver.pipelines.replay.columns import ActionType
from policyserver.pipelines.replay.kept_runs import drop_oldest
from policyserver.pipelines.replay.provenance import DataFile, Provenance
from policyserver.pipelines.replay.run_folder import PIPELINE_FILE, RUN_FILE, START_FILE, put_aside
from policyserver.pipelines.replay.turn_log import TurnLog

_LOCK = "run.lock"


@contextmanager
def claimed_folder(folder: Path) -> Iterator[FileLock]:
    """Keep other processes from writing a run into a folder until the block is left.

    Raises:
        SettingsError: The folder can't be written, or another process is writing its run there.
    """
    lock = FileLock(folder / _LOCK)
    try:
        taken = lock.take()
    except OSError as error:
        raise _unwritable(error) from error
    if not taken:
        raise SettingsError("recording.run_folder", "", f"expected a folder of this run alone, received {folder}, where another writes")
    try:
        yield lock
    finally:
        lock.release()


@contextmanager
def recorded_run(
    config: PipelineConfig, folder: Path, on_full: Callable[[], None], start: ForecastState | None = None, lock: FileLock | None = None
) -> Iterator[TurnLog]:
    """Write into a run's folder what the run is made with, and keep its event log until the block is left.

    Args:
        config: The settings as resolved.
        folder: The run's; what an earlier part of the run left in it is put aside, and runs beyond `recording.keep_runs` are removed.
        on_full: Ends the run; called when the log is full and `recording.when_events_full` is "end_run".
        start: What the forecaster begins with, which is kept in the folder; default: the state that `config.regressor` names.
        lock: That of `claimed_folder`, where it is held already; default: it is taken.

    Raises:
        SettingsError: The folder can't be written, or another process is writing its run there.
    """
    with claimed_folder(folder) if lock is None else nullcontext():
        log = _begun(config, folder, on_full, start)
        try:
            yield log
        finally:
            log.close()


def _begun(config: PipelineConfig, folder: Path, on_full: Callable[[], None], start: ForecastState | None) -> TurnLog:
    """Write what the run is made with, and open its event log."""
    config = dataclasses.replace(config, prices=config.prices.with_absolute_paths())  # a replay finds the files from any folder
    recording = config.recording
    try:
        made_with, start = Provenance.of(config), start or read_state(config.regressor)
        put_aside(folder)
        if start is not None and config.regressor.state is not None:
            (folder / START_FILE).write_bytes(start.data)
            made_with = dataclasses.replace(made_with, forecast_state=DataFile.of_bytes(state_path(config.regressor.state), start.data))
        for name, text in ((PIPELINE_FILE, dump_toml(config)), (RUN_FILE, made_with.to_json())):
            with writing_whole(folder / name) as part:
                part.write_text(text, encoding="utf-8")
        on_end = on_full if recording.when_events_full == "end_run" else _nothing
        if recording.keep_runs is not None:
            drop_oldest(folder, recording.run_folder or folder, recording.keep_runs)
        return TurnLog(folder, action_type(config), recording.max_event_bytes, on_end=on_end)
    except OSError as error:
        raise _unwritable(error) from error


def _unwritable(error: OSError) -> SettingsError:
    return SettingsError("recording.run_folder", "", f"expected a folder that can be written: {error}")


def action_type(config: PipelineConfig) -> ActionType:
    """Return what the actions of a run are made of."""
    space = Rules.of(config.rules).actions.space(make_slots(config.prices))
    return ActionType(np.dtype(space.dtype).name, tuple(space.shape or ()))


def _nothing() -> None:
    return
