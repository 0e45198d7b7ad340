"""A policy server in a process of its own, kept alive as long as the demo runs."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from policyserver.client import ClientConfig, HandshakeError, PolicyClient, PolicyServerError
from policyserver.common.channels import open_channel
from policyserver.common.streaming_calls import StreamChannel, forget

logger = logging.getLogger(__name__)

_HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
_SERVING = b"\x08\x01"
"""grpc.health.v1.HealthCheckResponse with status SERVING, as bytes."""
_ANSWER_S = 10.0
"""Longest wait for the handshake of a server that says SERVING."""
_RETRY_S = 0.5
_UNTOLD_STOP_S = 45.0
"""Longest stop of a server that is still starting, and so has not said how long it takes. By default a server says less."""


class ServerDiedError(RuntimeError):
    """The server process ended by itself."""


class ServerProcess:
    """`policy-server serve --config FILE`. A server that dies is started again with the same file, so with the same address and run folder.

    Ctrl-C in the terminal does not reach it: `stop` ends it after the episodes have ended. It also stops when this process is gone, however
    that ended, because its standard input ends with it.

    The process gets an id, which it says in each handshake. So no other server on the address is taken for it.
    """

    def __init__(self, config_file: Path, address: str, log_file: Path, *, max_restarts: int = 3) -> None:
        """Remember what to start.

        Args:
            config_file: The server's configuration.
            address: host:port it will listen on.
            log_file: Its standard output and error.
            max_restarts: How often a server that died is started again.
        """
        self.address = address
        self.log_file = log_file
        self.restarts = 0
        """How often it died and was started again."""
        self.instance_id = uuid.uuid4().hex
        """What the server calls itself, every time that it is started."""
        self.stop_timeout_s = _UNTOLD_STOP_S
        """Longest time that a stop may take, as the server says once it serves, seconds."""
        identity = ["--until_input_ends", "--instance_id", self.instance_id]
        self._command = [sys.executable, "-m", "policyserver.server", "serve", *identity, "--config", str(config_file)]
        self._max_restarts = max_restarts
        self._lock = threading.Lock()  # guards what follows
        self._process: subprocess.Popen[bytes] | None = None
        self._health_call: Any = None
        self._was_serving = False
        self._ended = threading.Event()
        self._stopping = False
        self._on_serving: Callable[[], None] = lambda: None
        self._on_death: Callable[[Exception], None] = lambda error: None
        self._health = threading.Thread(target=self._follow_health, name="server-health", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="server-process", daemon=True)

    def start(self, on_serving: Callable[[], None], on_death: Callable[[Exception], None]) -> None:
        """Start the process.

        Args:
            on_serving: Called once, on another thread, when the health service of this very server says SERVING.
            on_death: Called, on another thread, with a `ServerDiedError` when the process has ended by itself and is not started again:
                because it never served, or died too often.
        """
        self._on_serving, self._on_death = on_serving, on_death
        self._process = self._spawn()
        self._watcher.start()
        self._health.start()

    def stop(self) -> int | None:
        """Ask the process to stop, for good, and wait; after `stop_timeout_s` kill it and its children. Returns its status, or None."""
        with self._lock:
            self._stopping = True
            process = self._process
        if process is None:
            return None
        if process.stdin is not None:
            process.stdin.close()  # which ends it for good: a signal would promise its callers a successor
        try:
            process.wait(self.stop_timeout_s)
        except subprocess.TimeoutExpired:
            logger.warning("the policy server did not stop within %g s: killed", self.stop_timeout_s)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._watcher.join()
        self._health.join()
        return process.returncode

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as log:
            return subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def _follow_health(self) -> None:
        """Wait until this server says SERVING, or for the watcher to cancel the call because the process has ended."""
        while not self._is_serving():
            if self._ended.wait(_RETRY_S):
                return
        with self._lock:
            self._was_serving = True
        self._on_serving()

    def _is_serving(self) -> bool:
        """Follow the health service until it says that this server serves, or says no more."""
        options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
        with StreamChannel(open_channel(self.address, options)) as streams:
            watch = streams.channel.unary_stream(_HEALTH_WATCH, request_serializer=bytes, response_deserializer=bytes)
            try:
                with self._lock:
                    if self._ended.is_set():
                        return False
                    call: Any = streams.begin(watch, b"", wait_for_ready=True)
                    self._health_call = call
                return any(status == _SERVING and self._is_ours() for status in call)
            except (grpc.RpcError, PolicyServerError, RuntimeError) as error:
                logger.debug("the health service said %s", error)
                forget(error)
                return False
            finally:
                with self._lock:
                    self._health_call = None

    def _is_ours(self) -> bool:
        """Tell whether it is this server that answers, and note how long it takes to stop."""
        config = ClientConfig(connect_timeout_s=_ANSWER_S, spread_episodes=False, expected_instance_id=self.instance_id)
        with PolicyClient(self.address, config=config) as client:
            try:
                info = client.connect()
            except HandshakeError as error:
                logger.warning("%s", error)
                return False
        self.stop_timeout_s = info.stop_timeout_s or self.stop_timeout_s
        return True

    def _watch(self) -> None:
        """Start the process again when it dies, unless it never served."""
        while self._process is not None:
            code = self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
            with self._lock:
                again = self._was_serving and not self._stopping and self.restarts < self._max_restarts
                if again:
                    self.restarts += 1
                    logger.warning("the policy server died with status %d, started again (%d)", code, self.restarts)
                    self._process = self._spawn()
                    continue
                self._ended.set()
                stopped = self._stopping
                if self._health_call is not None:
                    self._health_call.cancel()
            if not stopped:
                what = f"died {self.restarts + 1} times" if self._was_serving else f"ended with status {code} before it was ready"
                self._on_death(ServerDiedError(f"the policy server {what}; its log {self.log_file} ends:\n{self._log_tail()}"))
            return

    def _log_tail(self) -> str:
        try:
            return "\n".join(self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        except OSError:
            return "(no log)"
