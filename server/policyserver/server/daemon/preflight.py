"""The checks before anything starts: `policy-server serve` makes them first, and `policy-server check-config` makes them alone."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

from policyserver.common.settings import SettingsError
from policyserver.monitoring.recording import OpenSink, prepared
from policyserver.monitoring.sink import MultiSink
from policyserver.monitoring.store.write_access import open_to_write
from policyserver.server.config.algorithm import (
    algorithm_config,
    check_action_space,
    check_devices,
    check_net,
    naming_setting,
    net_settings,
)
from policyserver.server.config.node_address import host_of
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.control.admin_security import network_access
from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointError, CheckpointFolder
from policyserver.server.daemon.ray_tls import has_tls
from policyserver.server.grpc_front.listen_security import check_listen

logger = logging.getLogger(__name__)

_LOOPBACK_TIMEOUT_S = 2.0


def check(config: ServerConfig) -> OpenSink:
    """Refuse what can be refused without RLlib and without a trace on disk.

    Returns:
        What opens the sinks of what is recorded.

    Raises:
        InsecureListenError: Strangers could get in, or a certificate, a key or a token can't be used.
        SettingsError: A setting can't be served, or the environment describes an InfluxDB incompletely.
    """
    for look in looks(config).values():
        look()
    return sinks_of(config)


def looks(config: ServerConfig) -> dict[str, Callable[[], object]]:
    """Return what `check` makes sure of, sinks apart, by the setting that each is about; each raises as `check` does."""
    pages = {"recording.page": config.page_listen, "recording.metrics": config.metrics_listen}
    return {
        "spaces.action": functools.partial(check_action_space, config),
        "listen": functools.partial(check_listen, config.listen),
        "listen.advertise": functools.partial(_check_told, config),
        "ray.send_secrets": functools.partial(_check_sending, config),
        "admin": functools.partial(network_access, config.admin, config.listen),
        **{key: functools.partial(page.token, key, "listen.") for key, page in pages.items() if page is not None},
        **{setting: functools.partial(_check_folder, folder, setting) for setting, folder in folders(config).items()},
    }


def _check_told(config: ServerConfig) -> None:
    """Warn where clients are told the host by which they came, of all actors: behind a gate that is right, else all but one are missed."""
    listen = config.listen
    if config.ray.joins and not listen.advertise and host_of(listen.address) in ("0.0.0.0", "::"):
        logger.warning(
            "listen.address %s: clients use the host by which they came, with another port for each serving actor. That is right behind a "
            "gate, or a name that stands for all nodes; else set node:PORT, or listen.advertise",
            listen.address,
        )


def _check_sending(config: ServerConfig) -> None:
    """Refuse to send secrets to actors who are let in by what others could read."""
    if config.ray.send_secrets and not has_tls():
        raise SettingsError(
            "ray.send_secrets",
            "",
            "expected Ray's TLS (RAY_USE_TLS=1 here and on each node) with true, received none: the key of an actor's link would travel in "
            "plain text, and with it anyone who hears it could ask for the secrets. Switch it on, or put the files on each node",
        )


def policy_looks(config: ServerConfig) -> dict[str, Callable[[], object]]:
    """Return what makes sure of the checkpoints to load, by their settings. `check-config` leaves them out: it may come before the run."""
    return {f"policies.load.{name}": functools.partial(_check_policy, config, name) for name in config.policies.load}


def _check_policy(config: ServerConfig, name: str) -> None:
    """Refuse a checkpoint that is not there, or not whole: it would be found after Ray's start."""
    named = config.policies.load[name]
    with naming_setting(f"policies.load.{name}", CheckpointError):
        if isinstance(named, int):
            checkpoint_folder(config, claim=False).whole(named)
        else:
            checkpoint_at(config, Path(named))


def check_all(config: ServerConfig) -> None:
    """Refuse whatever `serve` would refuse of a configuration; takes seconds, for it loads RLlib.

    Raises:
        InsecureListenError: See `check`.
        SettingsError: See `check`; or RLlib doesn't take the configuration, or the newest checkpoint is another configuration's.
    """
    check(config)
    if config.checkpoints_folder.is_dir():
        newest_checkpoint(config, checkpoint_folder(config, claim=False))
    from policyserver.server.runner.env_runner import ExternalEnvRunner
    from policyserver.server.runner.traffic_check import check_traffic

    built = algorithm_config(config, ExternalEnvRunner)
    check_devices(built)
    check_net(built)
    check_traffic(built)


def sinks_of(config: ServerConfig) -> OpenSink:
    """Return what opens the sinks of what is recorded.

    Raises:
        SettingsError: What says so is incomplete or wrong.
    """
    with naming_setting("recording", ValueError):
        return prepared(config.recording, config.store_file, config.store_file.parent) if config.recording.enabled else MultiSink


def make_folder(folder: Path, setting: str) -> None:
    """Make a folder that a setting names, with those above it.

    Raises:
        SettingsError: It can't be made or written.
    """
    _check_folder(folder, setting)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, setting, error.strerror) from error


def tell_of_open_folder(folder: Path) -> None:
    """Log a warning where other users can write the run folder: they could replace its files."""
    if folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        logger.warning("run_folder: others than its owner can write %s: `chmod go-w` keeps them out", folder)


def checkpoint_folder(config: ServerConfig, *, claim: bool = True, folder: Path | None = None) -> CheckpointFolder:
    """Open the checkpoints of a configuration, or those of another folder for it; see CheckpointFolder."""
    folder, net = folder or config.checkpoints_folder, net_settings(config)
    return CheckpointFolder(folder, config.checkpoints.keep, config.spaces, config.connectors, net, claim=claim)


def checkpoint_at(config: ServerConfig, path: Path) -> Checkpoint:
    """Return the checkpoint in a folder, whole and fit for a configuration.

    Raises:
        CheckpointError: There is no such checkpoint, or it can't be used.
    """
    number = path.name.rpartition("-")[2]
    if not (path.is_dir() and number.isdecimal()):
        raise CheckpointError(f"expected the folder of a checkpoint, such as checkpoints/checkpoint-00000001, received {path}")
    return checkpoint_folder(config, claim=False, folder=path.parent).whole(int(number))


def newest_checkpoint(config: ServerConfig, checkpoints: CheckpointFolder) -> Checkpoint | None:
    """Find the checkpoint that a start goes on from; None for fresh weights.

    Raises:
        SettingsError: It is another configuration's, or others could have changed it.
    """
    with naming_setting("checkpoints", CheckpointError):
        return checkpoints.newest_whole() if config.checkpoints.restore else None


def prepare_store(config: ServerConfig) -> None:
    """Make the file that is recorded to, or bring it up to date; a damaged one is put aside.

    Raises:
        SettingsError: The file can't be used.
        OSError: Another process keeps it locked.
    """
    if not config.recording.enabled:
        return
    try:
        open_to_write(config.store_file)[0].close()
    except (sqlite3.Error, OSError) as error:
        text = f"expected a file that SQLite can write to, received {config.store_file}: {error}"
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise OSError(0, f"recording.store: {text}") from error
        raise SettingsError("recording.store", "", text) from error


def check_loopback() -> None:
    """Refuse to start where processes of this machine can't talk over 127.0.0.1; Ray's do.

    Raises:
        OSError: They can't.
    """
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            socket.create_connection(listener.getsockname(), _LOOPBACK_TIMEOUT_S).close()
    except OSError as error:
        text = f"expected the loopback interface to be up, for Ray's processes talk over it, received: {error}; `ip link set lo up` does it"
        raise OSError(error.errno or 0, text) from error


def folders(config: ServerConfig) -> dict[str, Path]:
    """List the folders that are written to, by the setting that names each."""
    folders = {"run_folder": config.run_folder}
    if config.checkpoints.folder is not None:
        folders["checkpoints.folder"] = config.checkpoints.folder
    if config.recording.enabled and config.recording.store is not None:
        folders["recording.store"] = config.recording.store.parent
    return folders


def _check_folder(folder: Path, setting: str) -> None:
    """Refuse a folder that can't be written, or made, without making it."""
    found = folder.absolute()
    with contextlib.suppress(PermissionError):  # the error names the folder that may not be entered
        while not os.path.lexists(found):
            found = found.parent
    if not found.is_dir():
        raise _unusable(folder, setting, f"{found} is no folder")
    if not os.access(found, os.W_OK | os.X_OK):
        raise _unusable(folder, setting, f"{found} can't be written")


def _unusable(folder: Path, setting: str, reason: str | None) -> SettingsError:
    return SettingsError(setting, "", f"expected a folder that this user can write, received {folder}: {reason}")
