"""Starts a private Ray for this process: on loopback only, with a token of its own, without the dashboard.

Ray 2.60 binds four sockets on all interfaces even when told 127.0.0.1; a switch meant for laptops keeps it on loopback.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from policyserver.server.daemon.private_folder import PrivateFolder

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 512 * 2**20
"""Room for segments and weights on their way between two processes; a full sample queue of 32,768 steps takes a tenth."""

_ATTEMPTS = 3
"""Ray gives a node 30 s to come up and does not check that its processes still live; where one try fails, the next may not."""

_GRPC_EXPERIMENTS = "-event_engine_listener,-event_engine_client"
"""gRPC's older poller, for the serving processes: it has a thread less between a socket and the loop, and so takes a tenth less processor
time for a lone action, and of its latency. Read when a process first uses gRPC, which Ray's workers do before they run code of ours."""


class RayProcess:
    """A private Ray of this process; `stop()` ends it and removes its files."""

    def __init__(self, pointer: Path | None = None) -> None:
        """Make its folder and prepare Ray's environment, so that Ray may be imported from now on.

        Args:
            pointer: Where to keep a symbolic link to the folder, which has to lie elsewhere because the paths of Ray's sockets must be
                short. What an earlier process, now dead, left behind there is removed.

        Raises:
            SettingsError: No folder for temporary files has a path short enough, or something that is no link is in the link's place.
        """
        self._folder = PrivateFolder(pointer)
        self.folder = self._folder.path
        self._stopped = False
        os.environ.update(_environment(self.folder))

    def start(self, num_cpus: int, before_retry: Callable[[], None] = lambda: None) -> None:
        """Start Ray. A handler of SIGTERM that was set before stays; without one, Ray sets its own.

        Args:
            num_cpus: Logical CPUs, as many as actors take; these are tickets, not cores.
            before_retry: Called before another try; may raise to give up.

        Raises:
            Exception: Ray's own, if none of a few tries succeeded.
        """
        _read_environment_again()
        import ray

        for attempt in range(1, _ATTEMPTS + 1):
            with keeping_sigterm(), _few_processes() as nodes:
                try:
                    ray.init(
                        address="local",
                        num_cpus=num_cpus,
                        object_store_memory=OBJECT_STORE_BYTES,
                        include_dashboard=False,
                        configure_logging=False,
                        log_to_driver=True,
                        _node_ip_address="127.0.0.1",
                        _temp_dir=str(self.folder / "ray"),  # Ray opens it to all users; the one above stays closed
                    )
                    break
                except BaseException as error:
                    ray.shutdown()  # misses a node that was not up yet, whose processes ray.init leaves running
                    for node in nodes:
                        node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
                    if not isinstance(error, Exception) or not nodes or attempt == _ATTEMPTS:  # without a node another try is in vain
                        raise
                    logger.warning("Ray did not start (%s); trying again, %d of %d", error, attempt + 1, _ATTEMPTS)
            before_retry()
        logger.debug("Ray %s runs in %s", ray.__version__, self.folder)

    def stop(self) -> None:
        """End all processes of this Ray and remove its folder. A second call does nothing."""
        if self._stopped:
            return
        self._stopped = True
        try:
            if "ray" in sys.modules:
                import ray

                ray.shutdown()
        finally:
            self._folder.remove()


@contextlib.contextmanager
def keeping_sigterm() -> Iterator[None]:
    """Keep Ray from replacing a handler of SIGTERM: its own raises SystemExit wherever the start is, which may swallow it."""
    from ray._private import utils

    has_handler = callable(signal.getsignal(signal.SIGTERM))
    with replaced(utils, set_sigterm_handler=(lambda _: None) if has_handler else utils.set_sigterm_handler):
        yield


@contextlib.contextmanager
def _few_processes() -> Iterator[list[Any]]:
    """Leave out the autoscaler's monitor and the dashboard's head, which Ray starts, and waits for, even without a dashboard.

    They cost a second of processor time at the start and 170 MB for good. Yields a list that the nodes started meanwhile are put in.
    """
    from ray._private.node import Node

    nodes: list[Any] = []
    start_processes = Node.start_head_processes

    def start_head_processes(node: Any) -> None:
        nodes.append(node)
        start_processes(node)

    def without_dashboard(node: Any, **_: Any) -> None:
        node._webui_url = ""

    with replaced(Node, start_head_processes=start_head_processes, start_monitor=lambda _: None, start_api_server=without_dashboard):
        yield nodes


@contextlib.contextmanager
def replaced(owner: Any, **replacements: Any) -> Iterator[None]:
    """Replace functions of Ray's for as long as the block runs."""
    kept = {name: getattr(owner, name) for name in replacements}
    for name, replacement in replacements.items():
        setattr(owner, name, replacement)
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(owner, name, function)


def keep_results_in(folder: Path) -> None:
    """Have RLlib keep its own logs here, not in the user's home, where each start would leave a folder."""
    from ray.tune.trainable import trainable

    trainable.DEFAULT_STORAGE_PATH = str(folder / "results")


def _read_environment_again() -> None:
    """Make Ray read its environment again, which it otherwise reads once, at its import."""
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    ray_constants.ENABLE_RAY_CLUSTER = False
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _environment(folder: Path) -> dict[str, str]:
    """Return the variables that Ray and its child processes read; writes the token file."""
    token_file = folder / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(secrets.token_hex(32))
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback only, on every system
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_worker_niceness": "0",  # Ray's default is 15: serving would come last
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_COLOR_PREFIX": "0",
        "RAY_BACKEND_LOG_LEVEL": "fatal",  # one of its errors appears at every start and means nothing here
        "GRPC_EXPERIMENTS": os.environ.get("GRPC_EXPERIMENTS", _GRPC_EXPERIMENTS),
    }
