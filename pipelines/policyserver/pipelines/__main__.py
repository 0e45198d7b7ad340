"""The command line: `policy-pipeline run | demo | spaces | check-data | check-future | replay | processes | schemes`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from policyserver.common.command_line import OptionParser
from policyserver.common.file_permissions import keep_others_from_writing
from policyserver.common.settings import SettingsError, add_arguments, from_arguments, load
from policyserver.common.standard_streams import lasting_streams
from policyserver.pipelines import check_data
from policyserver.pipelines.replay import command as replay_command
from policyserver.pipelines.runtime.thread_switching import SWITCH_INTERVAL_S

logger = logging.getLogger("policyserver.pipelines")

_EXIT_INSECURE = 78
"""Exit status when steps would leave the machine in plain text; that of `policy-server` when others could reach it so."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 after an orderly end, 1 after a failure, 2 for wrong settings, 78 for plaintext."""
    with lasting_streams("policy-pipeline"):
        return _run_command(arguments)


def _run_command(arguments: Sequence[str] | None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = make_parser(given[0] if given and given[0] in _COMMANDS else None).parse_args(given)
    keep_others_from_writing()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        status: int = options.command(options)
    except Exception as error:
        status = _status_of(error)
        sys.stderr.write(f"policy-pipeline: {error}\n")
    return status


def _status_of(error: Exception) -> int:
    """Return the exit status after an error; one that is not foreseen is logged with its traceback."""
    if isinstance(error, SettingsError):
        return 2
    from policyserver.client import AuthenticationError, HandshakeError, InsecureTargetError
    from policyserver.pipelines.demo.server_process import ServerDiedError
    from policyserver.pipelines.runtime.stop_signals import StoppedEarlyError
    from policyserver.pipelines.summary import LedgerError

    if isinstance(error, InsecureTargetError):
        return _EXIT_INSECURE
    if isinstance(error, StoppedEarlyError):
        return 0
    if not isinstance(error, ServerDiedError | LedgerError | HandshakeError | AuthenticationError):
        logger.error("the run failed", exc_info=error)
    return 1


def make_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command, from which its reference is made, too.

    Args:
        only: The one part that is declared, so that a part costs its own imports alone; None declares all.
    """
    parser = OptionParser(prog="policy-pipeline", description="Event-driven trading pipelines that ask a policy server for actions.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (meaning, add_options) in _COMMANDS.items():
        if only in (None, name):
            add_options(commands.add_parser(name, help=meaning))
    return parser


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    from policyserver.pipelines.config import PipelineConfig

    parser.add_argument("--config", type=Path, help="TOML file; without one, the defaults")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there, besides the run's folder")
    add_arguments(parser, PipelineConfig)
    parser.set_defaults(command=_run)


def _add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    from policyserver.pipelines.demo.setup import DEFAULT_MARKET, DEFAULT_STEPS, DEMO_SERVER, MARKETS

    markets = ", ".join(MARKETS)
    parser.add_argument("--seed", type=int, help="of prices, initial weights and sampled actions (default: the set-up's, or 0)")
    parser.add_argument(
        "--market", metavar="NAME", default=DEFAULT_MARKET, help=f"the set-up that is played: {markets} (default: {DEFAULT_MARKET})"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="a pipeline's settings of your own, in place of a shipped set-up")
    parser.add_argument(
        "--prices",
        dest="files",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="trade the bars of a file (see check-data), instead of the set-up's prices; may be repeated",
    )
    parser.add_argument("--episodes", type=int, help="concurrent episodes (default: the set-up's, or 64)")
    parser.add_argument(
        "--steps",
        type=int,
        help=f"steps after which the demo ends, further ones with --resume (default: the set-up's, or {DEFAULT_STEPS:,})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there, too")
    parser.add_argument("--resume", action="store_true", help="continue the newest run: its seed, prices, episodes, weights and records")
    parser.add_argument(
        "--server",
        type=Path,
        default=DEMO_SERVER,
        metavar="FILE",
        help="the server's settings, a TOML file without run_folder, seed and listen.address, in place of all of the demo's own",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER", help="folder of the run folders (default: runs)")
    parser.set_defaults(command=_demo)


def _run(options: argparse.Namespace) -> int:
    from policyserver.pipelines.config import PipelineConfig
    from policyserver.pipelines.run import run_pipeline
    from policyserver.pipelines.runtime.stop_signals import StopSignals
    from policyserver.pipelines.walk_forward import is_walk_forward, run_walk_forward

    config = load(PipelineConfig, options.config, from_arguments(PipelineConfig, options))
    _log_to_stderr(logging.INFO)
    with StopSignals().installed() as stop:
        if is_walk_forward(config):
            sys.stdout.write(run_walk_forward(config, stop, options.json).table())
        else:
            run_pipeline(config, stop, options.json)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from policyserver.pipelines.demo.demo import run_demo
    from policyserver.pipelines.demo.setup import DemoConfig
    from policyserver.pipelines.runtime.stop_signals import StopSignals

    try:
        chosen = load(DemoConfig, overrides=from_arguments(DemoConfig, options))
    except SettingsError as error:
        raise SettingsError(f"--{error.key}", "option", error.problem) from error
    _log_to_stderr(logging.WARNING)
    with StopSignals().installed() as stop:
        run_demo(chosen, sys.stdout, stop)
    return 0


def _add_processes(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_list_processes)


def _add_schemes(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_list_schemes)


def _add_check_future(parser: argparse.ArgumentParser) -> None:
    from policyserver.pipelines.check_future import add_options

    add_options(parser)


def _add_spaces(parser: argparse.ArgumentParser) -> None:
    from policyserver.pipelines.spaces import add_options

    add_options(parser)


def _list_processes(options: argparse.Namespace) -> int:
    from policyserver.pipelines.listing import processes

    sys.stdout.write(processes())
    return 0


def _list_schemes(options: argparse.Namespace) -> int:
    from policyserver.pipelines.listing import schemes

    sys.stdout.write(schemes())
    return 0


def _log_to_stderr(level: int) -> None:
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


_COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "run": ("trade against a policy server that runs elsewhere, until SIGTERM or Ctrl-C", _add_run_arguments),
    "demo": ("start a policy server and 64 trading episodes against it; show that it learns", _add_demo_arguments),
    "spaces": ("print the tables of spaces that a server needs for a pipeline, to be appended to its settings", _add_spaces),
    "check-data": ("tell what files of bars hold and what is wrong with them; exit 1 on a fault", check_data.add_options),
    "check-future": ("tell whether a pipeline knows more than it can, without a server; exit 1 on a fault", _add_check_future),
    "replay": ("play a recorded run again without a server; exit 1 where it comes out differently", replay_command.add_options),
    "processes": ("list the price processes, with what can be set of them", _add_processes),
    "schemes": ("list the action schemes, observers, reward terms, ends and limits on risk, with what can be set of them", _add_schemes),
}
"""Each part of the command: its help, and what declares its options."""


if __name__ == "__main__":
    sys.exit(main())
