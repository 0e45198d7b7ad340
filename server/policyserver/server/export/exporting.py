"""Writes what a run has learned to a file, in the format that the file's name asks for."""

from __future__ import annotations

from pathlib import Path

from policyserver.common.settings import SettingsError
from policyserver.common.whole_file import writing_whole
from policyserver.server.export.run_folder import find_checkpoint, run_config

FORMATS = (".npz", ".onnx")


def export_policy(run_folder: Path, number: int | None, to: Path) -> str:
    """Write the policy of a checkpoint, whole or not at all.

    Args:
        run_folder: Folder of the run. Its server may run.
        number: Of the checkpoint; None takes the newest whole one.
        to: The file, which is replaced if it is there.

    Returns:
        What was written, for people.

    Raises:
        SettingsError: The file's name asks for no known format, or it can't be written; or there is no such run or checkpoint, or one that
            can't be used.
        CheckpointError: The checkpoint doesn't fit the run's configuration.
        ExportError: The policy has parts that a file can't carry.
    """
    if to.suffix not in FORMATS:
        raise SettingsError("to", "", f"expected a file whose name ends in {' or '.join(FORMATS)}, received {to}")
    if not to.parent.is_dir():
        raise SettingsError("to", "", f"expected a file in a folder that is there, received {to}")
    try:
        if to.is_dir():
            raise SettingsError("to", "", f"expected a file, received the folder {to}")
        with writing_whole(to) as unfinished:
            config = run_config(run_folder)
            checkpoint = find_checkpoint(config, number)
            from policyserver.server.export.npz_file import write_npz  # with RLlib
            from policyserver.server.export.onnx_file import write_onnx
            from policyserver.server.export.portable import portable
            from policyserver.server.export.trained_policy import restore

            policy = portable(restore(config, checkpoint))
            (write_onnx if to.suffix == ".onnx" else write_npz)(policy, unfinished)
    except OSError as error:
        if str(error.filename) != str(to):
            raise
        raise SettingsError("to", "", f"expected a file that can be written, received {to}: {error.strerror}") from error
    return f"{to}: checkpoint {checkpoint.number}, policy version {checkpoint.progress.weights_seq_no}"
