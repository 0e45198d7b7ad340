"""Logging of the server's processes: one format, standard error, and the run's log file where there is one."""

from __future__ import annotations

import logging
from pathlib import Path

_CHATTER = ("ray.rllib.algorithms.algorithm_config", "ray._common.deprecation")
"""Loggers that warn at every start about RLlib's own past."""


def log_to(level: str, file: Path | None = None) -> None:
    """Log from `level` on to standard error and, if given, to a file.

    Args:
        level: Name of the least severity.
        file: Appended to.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if file is not None:
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", handlers=handlers, force=True)
    logging.captureWarnings(True)
    for name in _CHATTER:
        logging.getLogger(name).setLevel(logging.ERROR)


def adopt_ray_loggers() -> None:
    """Let Ray's messages go where all others go; at its import, Ray gives its loggers a handler and a format of their own."""
    for name in ("ray", "ray.rllib", "ray.data", "ray.train", "ray.tune", "ray.serve"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
