"""What lies in the folder of a run: its configuration and its checkpoints."""

from __future__ import annotations

from pathlib import Path

from policyserver.common.settings import SettingsError, load
from policyserver.server.config.algorithm import naming_setting
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointError
from policyserver.server.daemon.preflight import checkpoint_folder


def run_config(run_folder: Path) -> ServerConfig:
    """Read the configuration of a run, as its server has written it.

    Raises:
        SettingsError: There is no such file, or it is of another version.
    """
    file = run_folder / "server.toml"
    if not file.is_file():
        raise SettingsError("run-folder", "", f"expected the folder of a run, with a server.toml, received {run_folder}")
    return load(ServerConfig, file, {"run_folder": str(run_folder)})


def find_checkpoint(config: ServerConfig, number: int | None) -> Checkpoint:
    """Find a checkpoint of a run by its number, or the newest whole one.

    Raises:
        SettingsError: There is no such checkpoint, or it can't be used.
    """
    with naming_setting("checkpoint", CheckpointError):
        folder = config.checkpoints_folder
        checkpoints = checkpoint_folder(config, claim=False)
        found = checkpoints.whole(number) if number is not None else checkpoints.newest_whole()
        if found is None:
            raise CheckpointError(f"{folder}: expected a whole checkpoint, received none")
        return found
