"""Runs a document as its reader would: every block in order, in one folder, with what it started still running."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from policyserver.common.settings import load
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.files.config import FilesConfig
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.preflight import check_all
from tests.documents import OUTPUT, ROOT, Block, commands
from tests.ports import free_ports
from tests.services import wait_until

_COMMAND_TIMEOUT_S = 600.0
_READY_TIMEOUT_S = 300.0
_STOP_TIMEOUT_S = 120.0

SERVER_PORT, PAGE_PORT = 9900, 9980
"""The ports that documents name, and the one behind each. A test takes free ones in their place."""

_SHORTER = {"python examples/cartpole_client.py": "--episodes 50", "python examples/own_external_env.py": "10"}
"""Arguments that make a program of minutes one of seconds."""

_LINKED = ("examples", "deploy", "docs", "Makefile", "requirements.txt", "pyproject.toml")

_PRELUDE = """
set -euo pipefail
[ ! -e .environment ] || . ./.environment
grpcurl() { (cd "$ROOT" && python -m tests.grpcurl "$@"); }
make() { command make --dry-run "$@" > /dev/null; }
"""
"""Before every command: what an earlier one exported, and stand-ins. What a target of make runs has tests of its own."""


class Story:
    """A folder, the addresses of a test, and the programs that run in the background."""

    def __init__(self, folder: Path, ports: Mapping[int, int] | None = None) -> None:
        """Prepare the folder.

        Args:
            folder: Where everything happens.
            ports: Ports to take in the place of those that documents name, where something listens there already.
        """
        taken = free_ports(4)
        self.ports = dict(zip((SERVER_PORT, SERVER_PORT + 1, PAGE_PORT, PAGE_PORT + 1), taken, strict=True)) | dict(ports or {})
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = os.environ | {"ROOT": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        for name in _LINKED:
            (folder / name).symlink_to(ROOT / name)
        (folder / ".venv").symlink_to(sys.prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        for process in self._running.values():
            if exc_type is not None and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for program in reversed(list(self._running)):
            self._stop(program, expects=None if exc_type else 0)

    def run(self, block: Block) -> None:
        """Run one block; AssertionError names it, with what it printed."""
        text = re.sub(r"\b\d{4}\b", lambda number: str(self.ports.get(int(number[0]), number[0])), block.text)
        if block.file_name:
            (self._folder / block.file_name).write_text(text, encoding="utf-8")
        if block.language == "toml":
            self._check_toml(block, text)
        elif block.language == "python" and not block.file_name:
            self._run([sys.executable, "-c", text], block.name)
        elif block.language == "console":
            for command in commands(text):
                self._run_command(command, block.name)
        else:
            assert block.language in (OUTPUT, "python"), f"{block.name}: {block.language or 'no language'}: mark it as not run, or as text"

    def _check_toml(self, block: Block, text: str) -> None:
        """Hold a configuration to what the command that reads it would refuse."""
        file = self._folder / (block.file_name or "fragment.toml")
        file.write_text(text, encoding="utf-8")
        before = Path.cwd()
        os.chdir(self._folder)
        sys.path.insert(0, str(self._folder))  # for modules of the page that a configuration names
        try:
            for name, config in (("pipeline", PipelineConfig), ("files", FilesConfig)):
                if block.file_name.startswith(name):
                    load(config, file, {})
                    return
            check_all(load(ServerConfig, file, {}))
        finally:
            sys.path.remove(str(self._folder))
            os.chdir(before)

    def _run_command(self, command: str, name: str) -> None:
        words = shlex.split(re.sub(r"^(\w+=\S+ )+", "", command), comments=True)
        program = " ".join(words[:2]).removeprefix(".venv/bin/")
        command = command if "\n" in command else command.partition("  # ")[0].rstrip()
        if program in _SHORTER:
            address = f" --address 127.0.0.1:{self.ports[SERVER_PORT]}" if "cartpole" in program else ""
            command = f"{command} {_SHORTER[program]}{address}"
        if program in ("policy-server serve", "policy-monitor serve", "policy-pipeline run", "python examples/trading_server.py"):
            self._start(program, command, words, name)
        else:
            self._run(["bash", "-c", f"{_PRELUDE}{command}\nexport -p > .environment"], name)

    def _run(self, command: list[str], name: str) -> None:
        process = subprocess.Popen(
            command,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate(timeout=_COMMAND_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed, _ = process.communicate()
        assert process.returncode == 0, f"{name}: {command[-1]}\nstatus {process.returncode}\n{printed[-6000:]}"

    # --- programs that run until they are stopped ---

    def _start(self, program: str, command: str, words: list[str], name: str) -> None:
        """Start one and wait until it is ready; one that runs already is stopped first, for it has the same port and folder."""
        self._stop(program, expects=0)
        command += self._own_address(program, words)
        port = int(command.rpartition(":")[2]) if program == "policy-monitor serve" else self.ports[SERVER_PORT]
        out = (self._folder / f"{program.replace(' ', '-').replace('/', '-')}.out").open("wb")
        with out:
            process = subprocess.Popen(
                ["bash", "-c", f"{_PRELUDE}exec env {command}"],
                cwd=self._folder,
                env=self._environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._running[program] = process

        def is_ready() -> bool:
            assert process.poll() is None, f"{name}: {command}\nended with {process.poll()}\n{Path(out.name).read_text()[-4000:]}"
            return _answers(port) if program != "policy-pipeline run" else b"trading " in Path(out.name).read_bytes()

        wait_until(is_ready, f"{name}: {command}", _READY_TIMEOUT_S)

    def _own_address(self, program: str, words: list[str]) -> str:
        """Return the options that a command needs for this test's address, where the document leaves the default."""
        if program == "policy-server serve":
            file = self._folder / words[words.index("--config") + 1] if "--config" in words else None
            usual = load(ServerConfig, file, {}).listen.address.endswith(f":{SERVER_PORT}")
            return f" --listen.address 127.0.0.1:{self.ports[SERVER_PORT]}" if usual and "--listen.address" not in words else ""
        if program == "policy-monitor serve":
            return "" if "--address" in words else f" --address 127.0.0.1:{self.ports[PAGE_PORT]}"
        if program == "policy-pipeline run":
            file = self._folder / words[words.index("--config") + 1] if "--config" in words else None
            settings = tomllib.loads(file.read_text(encoding="utf-8")) if file else {}
            return "" if "address" in settings.get("server", {}) else f" --server.address 127.0.0.1:{self.ports[SERVER_PORT]}"
        return f" {self.ports[SERVER_PORT]}"

    def _stop(self, program: str, *, expects: int | None) -> None:
        """Stop one as a service manager does, and check its status."""
        process = self._running.pop(program, None)
        if process is None:
            return
        process.send_signal(signal.SIGINT if program.startswith("python") else signal.SIGTERM)
        status = process.wait(_STOP_TIMEOUT_S)
        assert expects is None or status == expects, f"{program} ended with {status}"


def _answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0
