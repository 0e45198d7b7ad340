"""The command `policy-server ctl`: asks a running server how it is, and steers it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc

from policyserver.common.channels import open_channel
from policyserver.common.endpoints import parse_address
from policyserver.common.listening import read_file, read_token
from policyserver.common.standard_streams import LastingStream
from policyserver.server.control.admin_server import SOCKET
from policyserver.server.control.ctl_output import Plain, laid_out, plain
from policyserver.v1 import admin_service_pb2 as pb
from policyserver.v1 import admin_service_pb2_grpc as pb_grpc

EXIT_REFUSED, EXIT_WRONG = 1, 2
EXIT_NO_SERVER = 69
"""EX_UNAVAILABLE of sysexits.h."""
EXIT_NOT_IN_TIME = 75
"""EX_TEMPFAIL."""
EXIT_NO_ACCESS = 77
"""EX_NOPERM."""

RAY_LINK = "ray"
"""The link in a run folder that names the server's private folder."""
_RUN_FOLDER = Path("runs/server")
_LOOK_AGAIN_S = 0.1
"""Time between two looks for a server that is not there yet, or still there."""
_RESTART_S = 600.0
"""Longest time that one serving actor may take to hand off its steps and to come back."""
_TIMEOUT_S = 60.0
"""Longest wait for an action, unless it is told otherwise."""
_MOST_TIMEOUT_S = 7 * 86_400.0
_MOST_CHANGES = 1000
"""More serving actors than a server may have."""
_CHANNEL_OPTIONS = [("grpc.enable_retries", 0)]


class CtlError(Exception):
    """The command can't do what it was asked to; the text says why."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def add_actions(ctl: argparse.ArgumentParser) -> None:
    """Add the actions of `ctl`, each with its options."""
    actions = ctl.add_subparsers(dest="action", required=True)
    for name, action in _ACTIONS.items():
        parser = actions.add_parser(name, help=action.help, description=action.help)
        for argument, options in action.arguments.items():
            parser.add_argument(argument, **options)
        parser.add_argument(
            "--run_folder",
            "--run-folder",
            type=Path,
            metavar="DIR",
            help=f"folder of the server's run (default: {_RUN_FOLDER})",
        )
        parser.add_argument("--address", metavar="HOST:PORT", help="the server's admin.address, in place of a run folder on this machine")
        parser.add_argument(
            "--tls_ca_file", "--tls-ca-file", type=Path, metavar="FILE", help="certificate (PEM) by which the server is known"
        )
        parser.add_argument("--token_file", "--token-file", type=Path, metavar="FILE", help="file with the token of admin.token_file")
        parser.add_argument(
            "--timeout_s",
            "--timeout-s",
            type=_seconds,
            default=_TIMEOUT_S,
            metavar="S",
            help=f"seconds to wait at most (default: {_TIMEOUT_S:g})",
        )
        parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(parsed: argparse.Namespace, out: LastingStream) -> int:
    """Carry out a parsed command and print the answer; returns the exit status."""
    try:
        if parsed.address is not None and parsed.run_folder is not None:
            raise CtlError(f"expected --run_folder or --address, received both: {parsed.run_folder} and {parsed.address}", EXIT_WRONG)
        parsed.run_folder = parsed.run_folder or _RUN_FOLDER
        answer = _ACTIONS[parsed.action].call(parsed)
    except CtlError as error:
        sys.stderr.write(f"policy-server ctl {parsed.action}: {error}\n")
        return error.status
    out.write(f"{json.dumps(answer, indent=1)}\n" if parsed.json else "".join(f"{line}\n" for line in laid_out(answer)))
    out.flush()
    return EXIT_REFUSED if out.reason else 0


# Calls ----------------------------------------------------------------------------------------------------------------------------------


def _ask(parsed: argparse.Namespace, method: str, request: Any, timeout_s: float | None = None) -> Plain:
    """Call the server and return what it answered."""
    timeout_s = timeout_s or parsed.timeout_s
    channel, metadata = _open(parsed)
    with channel:
        try:
            return plain(getattr(pb_grpc.AdminServiceStub(channel), method)(request, timeout=timeout_s, metadata=metadata))
        except grpc.RpcError as error:
            raise _failure(error, parsed, timeout_s) from error


def _open(parsed: argparse.Namespace) -> tuple[grpc.Channel, tuple[tuple[str, str], ...]]:
    """Open a channel to the server, and say what each call must bring."""
    if parsed.address is None:
        return open_channel(f"unix:{_socket(parsed.run_folder)}", _CHANNEL_OPTIONS), ()
    if parsed.tls_ca_file is None or parsed.token_file is None:
        raise CtlError("expected --tls_ca_file and --token_file with --address, for the service has both there", EXIT_WRONG)
    try:
        target = parse_address(parsed.address)
        credentials = grpc.ssl_channel_credentials(read_file(parsed.tls_ca_file, "--tls_ca_file"))
        token = read_token(parsed.token_file, "--token_file")
    except ValueError as error:
        raise CtlError(str(error), EXIT_WRONG) from error
    return open_channel(target, _CHANNEL_OPTIONS, credentials), (("authorization", f"Bearer {token}"),)


def _where(parsed: argparse.Namespace) -> str:
    return str(parsed.address or parsed.run_folder)


def _socket(run_folder: Path) -> Path:
    """Find the socket of the server that has a run folder."""
    link = run_folder / RAY_LINK
    if not link.is_symlink():
        why = "there is no such folder" if not run_folder.is_dir() else "no server runs there"
        raise CtlError(f"expected the run folder of a running server, received {run_folder}: {why}; see --run_folder", EXIT_NO_SERVER)
    socket = Path(os.path.realpath(link)) / SOCKET
    if not socket.exists():
        raise CtlError(f"{run_folder}: no server answers there: {socket} is missing; a killed server leaves {link} behind", EXIT_NO_SERVER)
    return socket


def _failure(error: grpc.RpcError, parsed: argparse.Namespace, timeout_s: float) -> CtlError:
    code, text = error.code(), error.details()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return CtlError(f"no answer within {timeout_s:g} s; what was asked for may still be done", EXIT_NOT_IN_TIME)
    if code is grpc.StatusCode.UNAVAILABLE and not _is_there(parsed):
        return CtlError(f"{_where(parsed)}: no server answers there: {text}", EXIT_NO_SERVER)
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return CtlError(f"refused ({code.name}): {text}", EXIT_NO_ACCESS)
    return CtlError(f"refused ({code.name}): {text}", EXIT_REFUSED)


def _is_there(parsed: argparse.Namespace) -> bool:
    """Whether a server answers at all."""
    try:
        channel, metadata = _open(parsed)
        with channel:
            pb_grpc.AdminServiceStub(channel).Status(pb.StatusRequest(), timeout=2.0, metadata=metadata)
    except (CtlError, grpc.RpcError):
        return False
    return True


def _status(parsed: argparse.Namespace) -> Plain:
    return _ask(parsed, "Status", pb.StatusRequest())


def _wait_ready(parsed: argparse.Namespace) -> Plain:
    """Ask until the server serves; it may not be there yet."""
    deadline = time.monotonic() + parsed.timeout_s
    last: CtlError | Plain = CtlError("it was not asked", EXIT_NO_SERVER)
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            last = _ask(parsed, "Status", pb.StatusRequest(), max(left_s, _LOOK_AGAIN_S))
            if last["state"] == "serving":
                return last
        except CtlError as error:
            last = error
        time.sleep(min(_LOOK_AGAIN_S, left_s))
    found = last if isinstance(last, CtlError) else f"it is {last['state']}"
    raise CtlError(f"expected a server that serves within {parsed.timeout_s:g} s (--timeout_s): {found}", EXIT_NOT_IN_TIME)


def _drain(parsed: argparse.Namespace) -> Plain:
    """Begin the end, and wait for it unless that was not asked for."""
    deadline = time.monotonic() + parsed.timeout_s
    folder = _socket(parsed.run_folder).parent if parsed.address is None else None
    answer = _ask(parsed, "Drain", pb.DrainRequest(final=parsed.final))

    def runs() -> bool:
        if folder is None:
            return _is_there(parsed)
        return Path(os.path.realpath(parsed.run_folder / RAY_LINK)) == folder  # which it removes last

    while not parsed.no_wait and runs():
        if time.monotonic() > deadline:
            raise CtlError(f"it drains, and has not ended within {parsed.timeout_s:g} s", EXIT_NOT_IN_TIME)
        time.sleep(_LOOK_AGAIN_S)
    return answer | {"ended": not parsed.no_wait}


def _drop(parsed: argparse.Namespace) -> Plain:
    """Drop a policy; say so where there was none of that name, as the name may be misspelt."""
    answer = _ask(parsed, "DropPolicy", pb.DropPolicyRequest(name=parsed.name))
    if not answer["was_loaded"]:
        there = ", ".join(answer["loaded"]) or "none"
        sys.stderr.write(f"policy-server ctl drop: no loaded policy is called {parsed.name!r}; loaded: {there}\n")
    return answer


def _restart_actors(parsed: argparse.Namespace) -> Plain:
    """Replace the serving actors; each has its own time, so the call has that of all of them."""
    drain_timeout_s = _drain_timeout_s(parsed)
    timeout_s = max(parsed.timeout_s, _status(parsed)["actors_expected"] * (drain_timeout_s + _RESTART_S))
    return _ask(parsed, "RestartActors", pb.RestartActorsRequest(drain_timeout_s=drain_timeout_s), timeout_s)


def _scale(parsed: argparse.Namespace) -> Plain:
    """Change the number of serving actors; each that comes or goes has its own time."""
    drain_timeout_s = _drain_timeout_s(parsed)
    changes = abs(_status(parsed)["actors_expected"] - parsed.actors)
    timeout_s = max(parsed.timeout_s, min(changes, _MOST_CHANGES) * (drain_timeout_s + _RESTART_S))
    request = pb.ScaleActorsRequest(actors=parsed.actors, drain_timeout_s=drain_timeout_s)
    return _ask(parsed, "ScaleActors", request, timeout_s)


def _drain_timeout_s(parsed: argparse.Namespace) -> float:
    try:
        return float(parsed.drain_timeout_s)
    except ValueError as error:
        raise CtlError(f"--drain_timeout_s: expected seconds, received {parsed.drain_timeout_s!r}", EXIT_WRONG) from error


def _pin(pinned: bool) -> Callable[[argparse.Namespace], Plain]:
    return lambda parsed: _ask(parsed, "PinCheckpoint", pb.PinCheckpointRequest(number=parsed.number, pinned=pinned))


class _Action:
    """What `ctl` can do: its help, its own arguments, and what does it."""

    def __init__(self, text: str, call: Callable[[argparse.Namespace], Plain], **arguments: dict[str, Any]) -> None:
        self.help = text
        self.call = call
        self.arguments: Mapping[str, dict[str, Any]] = {
            name if "type" in options or "choices" in options else f"--{name}": options for name, options in arguments.items()
        }


def _flag(text: str) -> dict[str, Any]:
    return {"action": "store_true", "help": text}


def _checkpoint_number(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"expected the number of a checkpoint, from 1 on, received {text}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds <= _MOST_TIMEOUT_S:
        raise argparse.ArgumentTypeError(f"expected seconds, more than 0 and at most {_MOST_TIMEOUT_S:,.0f}, received {text!r}")
    return seconds


def _actor_count(text: str) -> int:
    if not (text.isdecimal() and int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"expected how many serving actors there should be, from 1 on, received {text}")
    return int(text)


_NUMBER: dict[str, Any] = {"type": _checkpoint_number, "metavar": "N", "help": "number of the checkpoint"}

_POLICY: dict[str, Any] = {"type": str, "metavar": "NAME", "help": "what episodes call it"}

_DRAIN_TIMEOUT: dict[str, Any] = {
    "default": 60.0,
    "metavar": "S",
    "help": "longest time that the open episodes of each that goes have to end in, seconds (default: 60)",
}

_ACTIONS = {
    "status": _Action("say how serving and learning are", _status),
    "pause": _Action(
        "pause learning, after the running update; serving goes on",
        lambda parsed: _ask(parsed, "PauseLearning", pb.PauseLearningRequest()),
    ),
    "resume": _Action("let learning go on", lambda parsed: _ask(parsed, "ResumeLearning", pb.ResumeLearningRequest())),
    "save": _Action(
        "save a checkpoint, after the running update",
        lambda parsed: _ask(parsed, "SaveCheckpoint", pb.SaveCheckpointRequest(pin=parsed.pin)),
        pin=_flag("pin it"),
    ),
    "checkpoints": _Action("list the checkpoints", lambda parsed: _ask(parsed, "ListCheckpoints", pb.ListCheckpointsRequest())),
    "rollback": _Action(
        "go back to a checkpoint: it is served at once, and learning goes on from it",
        lambda parsed: _ask(parsed, "RollBack", pb.RollBackRequest(number=parsed.number)),
        number=_NUMBER,
    ),
    "pin": _Action("keep a checkpoint, however many are newer", _pin(True), number=_NUMBER),
    "unpin": _Action("let a pinned checkpoint go when enough are newer", _pin(False), number=_NUMBER),
    "load": _Action(
        "serve a checkpoint beside the policy that learns, to episodes that name it",
        lambda parsed: _ask(parsed, "LoadPolicy", pb.LoadPolicyRequest(number=parsed.number, name=parsed.name)),
        number=_NUMBER,
        name={"default": "", "metavar": "NAME", "help": "what episodes call it (default: checkpoint-N)"},
    ),
    "drop": _Action(
        "begin no new episodes with a loaded policy; the open ones go on",
        _drop,
        name=_POLICY,
    ),
    "promote": _Action(
        "go back to the checkpoint of a loaded policy, and learn on from it",
        lambda parsed: _ask(parsed, "Promote", pb.PromoteRequest(name=parsed.name)),
        name=_POLICY,
    ),
    "restart-actors": _Action(
        "replace the serving actors one after another, without a step lost",
        _restart_actors,
        drain_timeout_s=_DRAIN_TIMEOUT,
    ),
    "scale": _Action(
        "change the number of serving actors, without a step lost",
        _scale,
        actors={"type": _actor_count, "metavar": "N", "help": "how many there should be, from 1 to listen.max_actors"},
        drain_timeout_s=_DRAIN_TIMEOUT,
    ),
    "drain": _Action(
        "stop the server as SIGTERM does, and wait for its end",
        _drain,
        final=_flag("tell callers that no server comes back"),
        no_wait=_flag("don't wait for the end"),
    ),
    "wait-ready": _Action("wait until the server serves; it may not be there yet", _wait_ready),
    "log-level": _Action(
        "log from a severity on, until the server ends",
        lambda parsed: _ask(parsed, "SetLogLevel", pb.SetLogLevelRequest(level=parsed.level)),
        level={"choices": ("DEBUG", "INFO", "WARNING", "ERROR"), "help": "least severity that is logged"},
    ),
}
