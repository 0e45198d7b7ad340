"""What the doctor looks at of a configuration: by the functions that a start calls, and without a trace."""

from __future__ import annotations

import contextlib
import copy
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from policyserver.common.settings import SettingsError
from policyserver.monitoring.page.listen import PageConfig
from policyserver.monitoring.store.reader import StoreReader
from policyserver.server.config.algorithm import algorithm_config, check_devices, check_net
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.control.admin_security import NetworkAccess
from policyserver.server.daemon.folder_lock import FolderLock
from policyserver.server.daemon.folder_owner import SILENCE_S, owner_elsewhere
from policyserver.server.daemon.preflight import (
    checkpoint_folder,
    folders,
    looks,
    newest_checkpoint,
    policy_looks,
    sinks_of,
    tell_of_open_folder,
)
from policyserver.server.daemon.private_folder import check_pointer
from policyserver.server.doctor import machine
from policyserver.server.doctor.check import Check, DoubtError, SkippedError
from policyserver.server.grpc_front.listen_address import address_of, claimed

_RLLIB_TIMEOUT_S = 120.0
"""RLlib's imports take seconds, and many of them from a slow disk."""
_CHECKPOINT_TIMEOUT_S = 60.0
"""Every byte of it is read."""
_DAY_S = 86_400.0
_SOON_DAYS = 14
"""A certificate that ends within these is to be renewed."""

_CERTIFICATES = "see the guide on TLS and tokens; `openssl req -x509 ...` makes a certificate, `chmod 600` closes a key or a token"
_ADVICE = {
    "spaces.action": "choose another algorithm.name, or another action space",
    "listen": _CERTIFICATES,
    "admin": _CERTIFICATES,
    "recording.page": _CERTIFICATES,
    "recording.metrics": _CERTIFICATES,
    "listen.advertise": "listen at node:PORT, or say where clients find each actor",
    "ray.send_secrets": "switch Ray's TLS on, here and on each node, or put certificate, key and token on each node",
}
_POLICIES = "policies.load."
_ALGORITHM_ADVICE = "correct the [algorithm] and [spaces] tables: the message names the key"
_IN_USE_ADVICE = "end the server that has it, `policy-server ctl drain --run_folder {run_folder}`, or choose another run_folder"
_FOLDER_ADVICE = "name a folder that this user can write, or let it: `chown`, or `chmod u+rwx`"
_POLICY_ADVICE = (
    "name a checkpoint that is there (`policy-server ctl checkpoints --run_folder {run_folder}`, or the run's folder `checkpoints`), or "
    "take the policy out"
)
_PORT_ADVICE = (
    "choose another port, or end what has it: `ss -ltnp` names the process, and a policy server ends by `policy-server ctl drain "
    "--run_folder DIR` with the run_folder that it was started with, which need not be this one"
)
_OF_FOLDERS = ("run_folder", "checkpoints.folder")
_OF_CHECKPOINTS = (*_OF_FOLDERS, "checkpoints.restore", "spaces", "connectors", "algorithm")
_NEEDS = {
    "spaces.action": ("spaces", "algorithm.name"),
    "admin": ("admin", "listen"),
    "listen.advertise": ("listen", "ray"),
    "ray.send_secrets": ("ray",),
    "recording.page": ("recording.page", "listen"),
    "recording.metrics": ("recording.metrics", "listen"),
}
"""Settings that a look of `preflight` needs beside the one that it is called by."""


def checks(config: ServerConfig, checkpoint: Path | None) -> list[Check]:
    """List what to look at, in the order of a start; `checkpoint` is what a server without a learner is to serve."""
    learns = config.learner.enabled
    of_settings = [
        Check(name, partial(_described, config, name, look), _ADVICE.get(name, _FOLDER_ADVICE), settings=_NEEDS.get(name, (name,)))
        for name, look in looks(config).items()
    ]
    of_policies = [
        Check(
            name,
            partial(_described, config, name, look),
            _POLICY_ADVICE.format(run_folder=config.run_folder),
            settings=("policies", *_OF_CHECKPOINTS),
        )
        for name, look in policy_looks(config).items()
    ]
    stored = (
        [
            Check(
                "store",
                partial(_store, config),
                "move the file elsewhere, and a start makes a new one",
                settings=("run_folder", "recording.store"),
            )
        ]
        if config.recording.enabled
        else []
    )
    return [
        *of_settings,
        *of_policies,
        *machine.space(folders(config), _checkpoint_bytes(config)),
        Check("run folder", partial(_run_folder, config), _IN_USE_ADVICE.format(run_folder=config.run_folder), settings=_OF_FOLDERS),
        Check(
            "recording",
            partial(_recording, config),
            "correct the [recording] table, or the variables INFLUXDB_V2_*",
            settings=("run_folder", "recording"),
        ),
        *stored,
        *(Check(name, look, _PORT_ADVICE, settings=(name.partition(",")[0].removesuffix(" address"),)) for name, look in _ports(config)),
        Check(
            "algorithm",
            partial(_algorithm, config),
            _ALGORITHM_ADVICE,
            _RLLIB_TIMEOUT_S,
            ("algorithm", "spaces", "connectors"),
        ),
        Check(
            "checkpoint",
            partial(_newest if learns else _served, config, checkpoint),
            "choose another run_folder, or move the checkpoints elsewhere to begin anew",
            _CHECKPOINT_TIMEOUT_S,
            (*_OF_CHECKPOINTS, "learner.enabled"),
        ),
    ]  # fmt: skip


def _described(config: ServerConfig, name: str, look: Callable[[], object]) -> str:
    found = look()
    listen = config.listen
    match name:
        case "listen":
            return _certificate(found) if listen.tls_certificate_file else f"plaintext at {listen.address}, for this machine alone"
        case "admin":
            return _certificate(found.certificate_ends_s) if isinstance(found, NetworkAccess) else "a socket for this user alone"
        case "spaces.action":
            return f"{config.spaces.observation_space} -> {config.spaces.action_space}"
        case "listen.advertise":
            return f"clients are told {listen.advertise or 'where each actor listens'}"
        case "ray.send_secrets":
            return "certificate, key and token go to the actors" if config.ray.send_secrets else "nothing is sent"
        case "recording.page" | "recording.metrics":
            return "TLS, and a token" if found else "for this machine alone"
    if name.startswith(_POLICIES):
        return f"checkpoint {config.policies.load[name.removeprefix(_POLICIES)]} is whole"
    return f"{folders(config)[name].absolute()} can be written"


def _certificate(ends_s: Any) -> str:
    if ends_s is None:
        return "TLS; OpenSSL does not say how long the certificate is valid"
    days = (ends_s - time.time()) / _DAY_S
    text = f"TLS, certificate valid until {datetime.fromtimestamp(ends_s, UTC):%Y-%m-%d}, {days:.0f} days from now"
    if days < _SOON_DAYS:
        raise DoubtError(f"{text}; expected {_SOON_DAYS} or more")
    return text


def _run_folder(config: ServerConfig) -> str:
    check_pointer(config.run_folder / "ray")
    for folder in (config.run_folder, *([config.checkpoints_folder] if config.learner.enabled else [])):
        if FolderLock.is_in(folder) and (owner := owner_elsewhere(folder)) is not None:
            raise DoubtError(f"{folder.absolute()}: {owner} has it, or died there; a start looks for {SILENCE_S:g} s whether that lives")
    if not config.run_folder.is_dir():
        return f"{config.run_folder.absolute()} will be made"
    tell_of_open_folder(config.run_folder)
    return f"{config.run_folder.absolute()} is no other server's"


def _recording(config: ServerConfig) -> str:
    if not config.recording.enabled:
        raise SkippedError("switched off by recording.enabled")
    sinks_of(config)
    return f"to {config.store_file}"


def _store(config: ServerConfig) -> str:
    """Read the store. A start makes an absent one, and puts a damaged one aside."""
    if not config.store_file.exists():
        return "will be made"
    try:
        with contextlib.closing(StoreReader(config.store_file)) as reader:
            return f"holds {len(reader.runs())} runs"
    except ValueError as error:
        raise DoubtError(f"{error}; a start puts it aside") from error
    except (OSError, sqlite3.Error) as error:
        raise SettingsError(
            "recording.store", "", f"expected a file that SQLite can write to, received {config.store_file}: {error}"
        ) from error


def _ports(config: ServerConfig) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield what takes each address for a moment."""
    if config.ray.joins:
        yield "listen.address", _of_the_cluster
    elif config.algorithm.environment.get("env") is None:
        runners = int(config.algorithm.methods.get("env_runners", {}).get("num_env_runners", 1)) if config.learner.enabled else 1
        for number in range(max(runners, 1)):
            name = "listen.address" if not number else f"listen.address, actor {number + 1}"
            yield name, partial(_claim, lambda number=number: address_of(config.listen.address, number))  # type: ignore[misc]
    if (address := config.admin.address) is not None:
        yield "admin.address", partial(_claim, lambda: address)
    for key, page in (("recording.page address", config.page_listen), ("recording.metrics address", config.metrics_listen)):
        if page is not None:
            yield key, partial(_bind, page, key.partition(" ")[0])


def _of_the_cluster() -> str:
    raise SkippedError(
        "the cluster's nodes are looked at by a start, before an actor is placed: addresses, certificates and versions there"
    )


def _claim(address: Callable[[], str]) -> str:
    with claimed(found := address()):
        return f"{found} is free"


def _bind(page: PageConfig, key: str) -> str:
    page.bind(key).close()
    return f"{page.address} is free"


def _algorithm(config: ServerConfig) -> str:
    import torch

    from policyserver.server.runner.env_runner import ExternalEnvRunner
    from policyserver.server.runner.traffic_check import check_traffic

    faults: list[str] = []
    tried: ServerConfig | None = config
    while tried is not None:
        try:
            built = algorithm_config(tried, ExternalEnvRunner)
            check_devices(built)
            check_net(built)
            check_traffic(built)
            break
        except SettingsError as error:
            faults.append(str(error))
            tried = _without(tried, error.key)
    if faults:
        raise ValueError("; ".join(faults))
    return f"RLlib takes {config.algorithm.name} with these settings; {torch.cuda.device_count()} GPUs"


def _without(config: ServerConfig, key: str) -> ServerConfig | None:
    """Return a configuration without an argument of RLlib that is at fault, to look at the others; None where the key names none."""
    section, _, path = key.partition("[")[0].partition(".")
    method, *names = path.split(".")
    if section != "algorithm" or not names:
        return None
    table = copy.deepcopy(getattr(config.algorithm, method))
    place = table
    for name in names[:-1]:
        place = place.get(name)
        if not isinstance(place, dict):
            return None
    if place.pop(names[-1], None) is None:
        return None
    return replace(config, algorithm=replace(config.algorithm, **{method: table}))


def _newest(config: ServerConfig, _: Path | None) -> str:
    if not config.checkpoints_folder.is_dir() or (newest := newest_checkpoint(config, checkpoint_folder(config, claim=False))) is None:
        return "none; a start begins with fresh weights"
    if (written := datetime.fromisoformat(newest.written_at).timestamp() if newest.written_at else 0.0) > time.time():
        raise DoubtError(f"checkpoint {newest.number} was written {written - time.time():.0f} s from now: the clock was set back")
    return f"goes on from checkpoint {newest.number}, policy version {newest.progress.weights_seq_no}"


def _served(config: ServerConfig, checkpoint: Path | None) -> str:
    from policyserver.server.alone.lone_server import find

    found = find(config, checkpoint)
    return f"serves {found.path}, policy version {found.progress.weights_seq_no}"


def _checkpoint_bytes(config: ServerConfig) -> int:
    """Return what the next checkpoint takes: each is written before the oldest goes."""
    sizes = [sum(file.stat().st_size for file in each.rglob("*") if file.is_file()) for each in _newest_folders(config)]
    return 2 * max(sizes, default=0)


def _newest_folders(config: ServerConfig) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(config.checkpoints_folder.glob("checkpoint-*"))[-1:]
    return []
