"""Has RLlib put serving actors and learners on the nodes of a cluster that the settings name: it knows of resources alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from policyserver.server.config.ray_config import RayConfig
from policyserver.server.daemon.ray_start import replaced


@contextlib.contextmanager
def placing(config: RayConfig) -> Iterator[None]:
    """Have the algorithm that is built meanwhile place its actors by labels, and each serving actor on another node if that is wanted.

    Serving actors that come later are placed likewise, for what Ray is told of them stays with their group.
    """
    if not config.joins:
        yield
        return
    with _placing_actors(config), _placing_learners(config):
        yield


@contextlib.contextmanager
def _placing_actors(config: RayConfig) -> Iterator[None]:
    wanted: dict[str, Any] = {}
    if config.placement == "spread":
        wanted["scheduling_strategy"] = "SPREAD"
    if config.serving_labels:
        wanted["label_selector"] = dict(config.serving_labels)
    from ray.rllib.env.env_runner_group import EnvRunnerGroup

    make = EnvRunnerGroup._make_worker

    def make_worker(group: Any, *arguments: Any, **named: Any) -> Any:
        group._remote_args = wanted | group._remote_args
        return make(group, *arguments, **named)

    with replaced(EnvRunnerGroup, _make_worker=make_worker):
        yield


@contextlib.contextmanager
def _placing_learners(config: RayConfig) -> Iterator[None]:
    if not config.learner_labels:
        yield
        return
    from ray.train._internal.worker_group import WorkerGroup

    add = WorkerGroup.add_workers

    def add_workers(group: Any, number: int) -> None:
        group._remote_cls = _Labelled(group._remote_cls, dict(config.learner_labels))
        add(group, number)

    with replaced(WorkerGroup, add_workers=add_workers):
        yield


class _Labelled:
    """A class of actors on nodes with some labels, for a caller that gives further options."""

    def __init__(self, actors: Any, selector: dict[str, str]) -> None:
        self._actors, self._selector = actors, selector

    def options(self, **options: Any) -> Any:
        return self._actors.options(label_selector=self._selector, **options)
