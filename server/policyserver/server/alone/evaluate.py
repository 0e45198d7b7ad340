"""The command `policy-server evaluate`: how good a checkpoint is, by greedy episodes of whatever clients come."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from policyserver.common.settings import SettingsError
from policyserver.common.standard_streams import LastingStream
from policyserver.server.alone.evaluation import Evaluation
from policyserver.server.config.admin_config import AdminConfig
from policyserver.server.config.policies_config import PoliciesConfig
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.config.traffic_config import TrafficConfig
from policyserver.server.daemon.checkpoints import Checkpoint

EXIT_FEWER = 1
"""Exit status where fewer episodes were played to their end than were asked for."""
_RUN_FOLDER = Path("runs/server")
_EPISODES = 100


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    text = f"folder of the run, whose server may go on meanwhile (default: {_RUN_FOLDER})"
    parser.add_argument("--run_folder", "--run-folder", type=Path, default=_RUN_FOLDER, metavar="DIR", help=text)
    parser.add_argument("--checkpoint", type=int, metavar="N", help="number of the checkpoint; the newest whole one by default")
    parser.add_argument("--episodes", type=int, default=_EPISODES, metavar="N", help=f"episodes that count (default: {_EPISODES})")
    parser.add_argument("--address", metavar="ADDRESS", help="HOST:PORT or unix:PATH to serve on; the run's listen.address by default")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def evaluate(parsed: argparse.Namespace, log_to: Callable[[ServerConfig], None], out: LastingStream) -> int:
    """Serve greedy episodes until enough have ended, or a signal comes, and print the result.

    Args:
        parsed: The options.
        log_to: Begins to log as a configuration says.
        out: Where the result goes.

    Returns:
        0, or `EXIT_FEWER`.

    Raises:
        SettingsError: There is no such run or checkpoint, or an option can't be used.
        Exception: What `LoneServer.run` raises.
    """
    if parsed.episodes < 1:
        raise SettingsError("episodes", "", f"expected at least 1, received {parsed.episodes}")
    from policyserver.server.alone.lone_server import LoneServer
    from policyserver.server.daemon.preflight import make_folder
    from policyserver.server.export.run_folder import find_checkpoint, run_config

    of_run = run_config(parsed.run_folder)
    checkpoint = find_checkpoint(of_run, parsed.checkpoint)
    config = evaluated(of_run, checkpoint, parsed.address)
    make_folder(config.run_folder, "run_folder")
    log_to(config)
    evaluation = Evaluation(parsed.episodes)
    LoneServer(config, checkpoint.path, evaluation).run()
    result = {"checkpoint": checkpoint.number, "weights_seq_no": checkpoint.progress.weights_seq_no, **evaluation.result()}
    out.write(f"{json.dumps(result, indent=1)}\n" if parsed.json else f"{_told(result)}\n")
    out.flush()
    return 0 if result["episodes"] == parsed.episodes else EXIT_FEWER


def evaluated(of_run: ServerConfig, checkpoint: Checkpoint, address: str | None) -> ServerConfig:
    """Return a run's configuration without learner, exploration and other policies, in a folder of its own: the run's server may go on."""
    return replace(
        of_run,
        run_folder=of_run.run_folder / "evaluations" / checkpoint.path.name,
        policies=PoliciesConfig(),  # what is evaluated plays all episodes, and needs no others, which may be gone by now
        traffic=TrafficConfig(),
        listen=replace(of_run.listen, address=address or of_run.listen.address),
        admin=AdminConfig(),
        learner=replace(of_run.learner, enabled=False),
        checkpoints=replace(of_run.checkpoints, folder=of_run.checkpoints_folder),
        recording=replace(of_run.recording, store=None, page=None, metrics=None),
        algorithm=replace(of_run.algorithm, env_runners={**of_run.algorithm.env_runners, "explore": False}),
    )


def _told(result: dict[str, Any]) -> str:
    """Lay a result out for a person."""
    begins = f"checkpoint {result['checkpoint']}, policy version {result['weights_seq_no']}: "
    others = ", ".join(f"{result[name]} {name}" for name in ("lost", "unfinished") if result[name])
    count = f"{result['episodes']} of {result['wanted']} episodes{f' ({others})' if others else ''}"
    if result["return_mean"] is None:
        return f"{begins}{count}"
    error = "" if result["return_error"] is None else f" ± {result['return_error']:.2f}"
    spread = f"from {result['return_min']:g} to {result['return_max']:g}, length {result['length_mean']:.1f}"
    return f"{begins}return {result['return_mean']:.2f}{error} (standard error), {spread}, over {count}"
