"""Demos that are not run: each leaves the files of a run, and a summary."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from policyserver.pipelines.demo.demo import DemoResult
from policyserver.pipelines.demo.setup import DemoConfig
from policyserver.pipelines.runtime.stop_signals import StopSignals
from policyserver.pipelines.summary import Summary

_ZEROS: dict[str, Any] = {field.name: 0 for field in dataclasses.fields(Summary)}


class Demos:
    """Stands in for `run_demo`: notes what was to be run, and returns a summary of it."""

    def __init__(self, folder: Path, leave: Callable[[DemoConfig, Path], dict[str, Any]], interrupted_at: int | None = None) -> None:
        """Keep the run folders in `folder`; `leave` writes what a run leaves behind in its own, and returns figures of its summary."""
        self.asked: list[DemoConfig] = []
        self._folder = folder
        self._leave = leave
        self._interrupted_at = interrupted_at

    def __call__(self, options: DemoConfig, out: TextIO, stop: StopSignals) -> DemoResult:
        self.asked.append(options)
        folder = self._folder / str(len(self.asked))
        folder.mkdir()
        told = {"process": options.market, "seed": options.seed, "steps": options.steps, "nodes": ()} | self._leave(options, folder)
        return DemoResult(Summary(**(_ZEROS | told)), folder, interrupted=len(self.asked) == self._interrupted_at)
