"""The command line: `policy-server serve [--config FILE] [--section.field VALUE ...]`, and the commands beside it."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from policyserver.common.command_line import OptionParser
from policyserver.common.file_permissions import keep_others_from_writing
from policyserver.common.listening import InsecureListenError
from policyserver.common.settings import SettingsError, add_arguments, dump_toml, from_arguments, load, reason_of
from policyserver.common.standard_streams import LastingStream, lasting_streams
from policyserver.server.alone import evaluate as evaluate_command
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.control import ctl
from policyserver.server.doctor import doctor
from policyserver.server.processes.log_setup import log_to
from policyserver.server.processes.quick_imports import import_quickly

if TYPE_CHECKING:
    from policyserver.server.alone.lone_server import LoneServer
    from policyserver.server.daemon.daemon import Daemon

EXIT_FAILURE = 1
EXIT_BAD_SETTINGS = 2

logger = logging.getLogger("policyserver.server")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 after an orderly end, 1 on failure, 2 for a wrong setting, 78 for an address that would be open to strangers; `ctl` and `doctor`
        have more.
    """
    with lasting_streams("policy-server") as out:
        return _run_command(arguments, out)


def _run_command(arguments: Sequence[str] | None, out: LastingStream) -> int:
    parsed = make_parser().parse_args(arguments)
    keep_others_from_writing()
    if parsed.command == "ctl":
        return ctl.run(parsed, out)
    if parsed.command == "doctor":
        return doctor.run(parsed, out)
    if parsed.command == "evaluate":
        return evaluate(parsed, out)
    if parsed.command == "export":
        return export(parsed.run_folder, parsed.checkpoint, parsed.to, out)
    if parsed.command == "replay-update":
        return replay_update(parsed.file, parsed.run_folder, parsed.checkpoint, out)
    try:
        config = load(ServerConfig, parsed.config, from_arguments(ServerConfig, parsed))
    except SettingsError as error:
        return _fail(error, EXIT_BAD_SETTINGS)
    if parsed.command == "check-config":
        return check_config(config, out)
    return serve(config, checkpoint=parsed.checkpoint, until_input_ends=parsed.until_input_ends)


def _stop_when_input_ends(server: Daemon | LoneServer) -> None:
    """Stop the server for good when standard input ends: the process at the other end is done with the server, or gone."""
    with contextlib.suppress(OSError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    server.stop_for(is_final=True)


def check_config(config: ServerConfig, out: LastingStream) -> int:
    """Print a configuration if `serve` would take it; returns the exit status of `main`."""
    from policyserver.server.daemon.preflight import check_all

    log_to("WARNING")
    status = _status_of(lambda: check_all(config))
    if status == 0:
        out.write(dump_toml(config, comments=True))
        out.flush()
    return status or (EXIT_FAILURE if out.reason else 0)


def export(run_folder: Path, checkpoint: int | None, to: Path, out: LastingStream) -> int:
    """Write a trained policy to a file; returns the exit status of `main`."""
    from policyserver.server.export.exporting import export_policy

    def run() -> None:
        out.write(f"{export_policy(run_folder, checkpoint, to)}\n")
        out.flush()

    log_to("WARNING")
    return _status_of(run) or (EXIT_FAILURE if out.reason else 0)


def replay_update(file: Path, run_folder: Path, checkpoint: int | None, out: LastingStream) -> int:
    """Learn again from a batch of the quarantine, and print what the guard says; returns the exit status of `main`."""
    from policyserver.server.daemon import replayed_update

    def run() -> None:
        out.write(f"{replayed_update.replay_update(file, run_folder, checkpoint)}\n")
        out.flush()

    log_to("ERROR")
    return _status_of(run) or (EXIT_FAILURE if out.reason else 0)


def evaluate(parsed: argparse.Namespace, out: LastingStream) -> int:
    """Serve the episodes of an evaluation, and print its result; returns the exit status of `main`."""
    statuses: list[int] = []

    def begin_log(config: ServerConfig) -> None:
        log_to(config.log_level, config.log_file, config.log)

    return (
        _status_of(lambda: statuses.append(evaluate_command.evaluate(parsed, begin_log, out)))
        or statuses[0]
        or (EXIT_FAILURE if out.reason else 0)
    )


def serve(config: ServerConfig, *, checkpoint: Path | None = None, until_input_ends: bool = False) -> int:
    """Serve until a signal ends it, or the end of standard input; returns the exit status of `main`."""
    from policyserver.server.alone.lone_server import LoneServer
    from policyserver.server.daemon.daemon import Daemon
    from policyserver.server.daemon.preflight import check, make_folder, policy_looks

    def run() -> None:
        if checkpoint is not None and config.learner.enabled:
            raise SettingsError(
                "checkpoint", "", "expected learner.enabled = false with it; a server that learns goes on from its run folder"
            )
        check(config)
        for look in policy_looks(config).values():
            look()
        make_folder(config.run_folder, "run_folder")
        log_to(config.log_level, config.log_file, config.log)
        import_quickly("policyserver.server.runner.env_runner")  # and with it RLlib and PyTorch
        server = Daemon(config) if config.learner.enabled else LoneServer(config, checkpoint)
        if until_input_ends:
            threading.Thread(target=_stop_when_input_ends, args=(server,), name="input", daemon=True).start()
        server.run()
        logger.info("stopped")

    return _status_of(run)


def _status_of(action: Callable[[], None]) -> int:
    """Run an action and return its exit status; if it is refused or fails, say why in one line."""
    from policyserver.server.daemon.checkpoints import CheckpointError
    from policyserver.server.daemon.daemon_errors import DaemonError
    from policyserver.server.daemon.folder_lock import FolderInUseError
    from policyserver.server.export.errors import ExportError
    from policyserver.server.grpc_front.listen_security import EXIT_INSECURE

    try:
        action()
    except (SettingsError, InsecureListenError) as error:
        return _fail(error, EXIT_BAD_SETTINGS if isinstance(error, SettingsError) else EXIT_INSECURE)
    except ModuleNotFoundError:
        raise  # the command says which extra brings it
    except Exception as error:
        foreseen = isinstance(error, OSError | FolderInUseError | CheckpointError | DaemonError | ExportError)
        logger.log(logging.DEBUG if foreseen else logging.ERROR, "the cause" if foreseen else "an unforeseen error", exc_info=True)
        return _fail(error, EXIT_FAILURE)
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command, from which its reference is made, too."""
    parser = OptionParser(prog="policy-server", description="Serve a policy over gRPC that learns from external episodes.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("serve", "serve and learn until SIGTERM or SIGINT"),
        ("check-config", "check the configuration as serve does, and print it whole, with every default and its meaning"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--config", type=Path, metavar="FILE", help="configuration file (TOML); options are stronger")
        add_arguments(command, ServerConfig)
        if name == "serve":
            command.add_argument("--until_input_ends", action="store_true", help="stop, for good, when standard input ends")
            text = "folder of the checkpoint to serve without a learner; the newest of the run folder by default"
            command.add_argument("--checkpoint", type=Path, metavar="PATH", help=text)
    text = "look at everything before a start, and say what to do"
    doctor.add_options(commands.add_parser("doctor", help=text, description=text))
    text = "serve greedy episodes of a checkpoint, and print their mean return"
    evaluate_command.add_options(commands.add_parser("evaluate", help=text, description=text))
    text = "write a trained policy to a file, to act without a server"
    command = commands.add_parser("export", help=text, description=text)
    command.add_argument("--run_folder", "--run-folder", type=Path, metavar="DIR", required=True, help="folder of the run")
    command.add_argument("--checkpoint", type=int, metavar="N", help="number of the checkpoint; the newest whole one by default")
    command.add_argument("--to", type=Path, metavar="FILE", required=True, help="file to write: NAME.npz, for a LocalPolicy, or NAME.onnx")
    text = "learn again from a batch that the guard on learning has kept, without a server, and print what the guard says of it"
    command = commands.add_parser("replay-update", help=text, description=text)
    command.add_argument("file", type=Path, metavar="FILE", help="file of the folder `quarantine` of a run")
    command.add_argument(
        "--run_folder", "--run-folder", type=Path, metavar="DIR", required=True, help="folder of the run; nothing in it is changed"
    )
    command.add_argument(
        "--checkpoint",
        type=int,
        metavar="N",
        help="number of the checkpoint to learn on from; the newest whole one by default, or the weights that the run began with",
    )
    text = "ask a running server how it is, and steer it"
    ctl.add_actions(commands.add_parser("ctl", help=text, description=text))
    return parser


def _fail(error: Exception, status: int) -> int:
    sys.stderr.write(f"policy-server: {reason_of(error)}\n")
    return status


def program() -> NoReturn:
    """Run the command line as this process, and end it at once: Python would need seconds to tear torch and Ray down."""
    try:
        status = main()
    except SystemExit as error:  # argparse's
        status = error.code if isinstance(error.code, int) else EXIT_BAD_SETTINGS
    logging.shutdown()
    os._exit(status)


if __name__ == "__main__":
    program()
