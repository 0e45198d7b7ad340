"""The settings part of learning.md: what a run's own files say that differs from the shipped defaults."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.settings_difference import differing, shown
from policyserver.common.settings import load
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.demo.setup import SERVER_FILE
from policyserver.pipelines.replay.run_folder import PIPELINE_FILE

_OF_THE_RUN = {
    *("seed", "run_folder", "listen.address", "server.address", "server.instance_id"),
    *("recording.run", "recording.store", "recording.run_folder"),
}
"""Names of the run, and where it was: another one in each."""


def settings_of(folder: Path) -> list[str]:
    """Return the lines of both sides' settings, from the files in a run's folder."""
    pipeline = differing(load(PipelineConfig, folder / PIPELINE_FILE))
    server = dict(_flat(tomllib.loads((folder / SERVER_FILE).read_text(encoding="utf-8")), ""))
    return [
        "Settings that differ from the shipped defaults, read from the first run's own files. The pipeline:",
        "",
        *_block(pipeline),
        "",
        "The server:",
        "",
        *_block(server),
    ]


def _block(settings: Mapping[str, Any]) -> list[str]:
    return ["```toml", shown({key: value for key, value in settings.items() if key not in _OF_THE_RUN}), "```"]


def _flat(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
