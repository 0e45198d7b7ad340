"""RLlib's two connector pipelines, called as its own env runner calls them, on any list of episodes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import tree
from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module.mean_std_filter import MeanStdFilter
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.filter import RunningStat
from ray.rllib.utils.metrics import ENV_TO_MODULE_CONNECTOR, MODULE_TO_ENV_CONNECTOR
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from policyserver.server.policies.module.inference import PolicyNet
from policyserver.server.policies.policy import Mask

RestoreState = Callable[[], None]
"""Brings a connector back to the state it had when this was made. To be called once."""


class UncopyableConnectorError(TypeError):
    """A connector that can't be tried out on a copy."""


class ConnectorPipelines:
    """Run env-to-module pipeline, net and module-to-env pipeline, one after the other."""

    def __init__(self, env_to_module: ConnectorPipelineV2, module_to_env: ConnectorPipelineV2, metrics: MetricsLogger) -> None:
        """Take over what RLlib builds; only the thread that calls the pipelines may touch them from now on."""
        self.env_to_module, self.module_to_env = env_to_module, module_to_env
        self.metrics = metrics
        pieces = [*pieces_of(env_to_module), *pieces_of(module_to_env)]
        self._stateful = [piece for piece in pieces if type(piece).get_state is not ConnectorV2.get_state]
        self.one_by_one = False
        """Whether the net is asked for one row at a time: RLlib's recurrent DQN module mixes up the rows of a batch when it explores."""
        self.net_chose = False
        """Whether the net gave actions itself when it was last asked."""
        self._filters = [piece for piece in pieces if isinstance(piece, MeanStdFilter)]

    def trial(self) -> ConnectorPipelines:
        """Return a copy to try out, which leaves the state of the original alone.

        Raises:
            UncopyableConnectorError: A connector can't be copied.
        """
        try:
            env_to_module, module_to_env = copy.deepcopy((self.env_to_module, self.module_to_env))
        except Exception as error:
            raise UncopyableConnectorError(
                f"connectors: expected ones that copy.deepcopy can copy, for they are tried out before they serve; {error}; "
                "define __deepcopy__ for what can't be copied"
            ) from error
        return ConnectorPipelines(env_to_module, module_to_env, MetricsLogger())

    def savepoint(self) -> list[RestoreState]:
        """Return what brings each connector that has a state back to what it is now."""
        return [
            _filter_savepoint(piece) if type(piece) is MeanStdFilter else partial(piece.set_state, copy.deepcopy(piece.get_state()))
            for piece in self._stateful
        ]

    def to_module(
        self,
        net: PolicyNet,
        episodes: list[SingleAgentEpisode],
        shared_data: dict[str, Any],
        columns: dict[str, Any],
        training: Mask,
        *,
        explore: bool,
    ) -> dict[str, Any]:
        """Turn the newest observations of n episodes into the net's batch.

        Args:
            net: The net.
            episodes: The episodes.
            shared_data: What connectors leave for each other, from call to call.
            columns: What came from the environment, by column name, a list of n items each.
            training: Which episodes are trained on, bool[n]. RLlib's filters don't learn from the others.
            explore: Whether the episodes explore.
        """
        arguments = self._arguments(net, episodes, shared_data, ENV_TO_MODULE_CONNECTOR, explore)
        with self._filters_learn_from(training):
            return dict(self.env_to_module(batch={}, **arguments, **columns))

    def to_environment(
        self, net: PolicyNet, batch: dict[str, Any], episodes: list[SingleAgentEpisode], shared_data: dict[str, Any], *, explore: bool
    ) -> dict[str, Any]:
        """Ask the net and turn what it gives into n items in each column."""
        # Connectors get the net's tensors, which outside of this mode could not be written to.
        with torch.inference_mode():
            if self.one_by_one and explore and len(episodes) > 1:
                rows = [net.forward(_row(batch, place), explore=explore) for place in range(len(episodes))]
                out = tree.map_structure(lambda *parts: torch.cat(parts), *rows)
            else:
                out = net.forward(batch, explore=explore)
            self.net_chose = Columns.ACTIONS in out
            arguments = self._arguments(net, episodes, shared_data, MODULE_TO_ENV_CONNECTOR, explore)
            return dict(self.module_to_env(batch=out, **arguments))

    def _arguments(
        self, net: PolicyNet, episodes: list[SingleAgentEpisode], shared_data: dict[str, Any], name: str, explore: bool
    ) -> dict[str, Any]:
        of_net = {"rl_module": net.module, "explore": explore, "metrics": self.metrics, "metrics_prefix_key": (name,)}
        return {**of_net, "episodes": episodes, "shared_data": shared_data}

    @contextmanager
    def _filters_learn_from(self, training: Mask) -> Iterator[None]:
        if not self._filters or training.all():
            yield
            return
        filters = [(piece, piece._filters) for piece in self._filters]  # which `savepoint` has made, where RLlib had not yet
        for piece, by_agent in filters:
            piece._filters = {agent: _Selective(filter_, training) for agent, filter_ in by_agent.items()}
        try:
            yield
        finally:
            for piece, by_agent in filters:
                piece._filters = by_agent


def _row(batch: dict[str, Any], place: int) -> dict[str, Any]:
    part = slice(place, place + 1)
    return {
        name: column[part] if isinstance(column, list) else tree.map_structure(lambda leaf: leaf[part], column)
        for name, column in batch.items()
    }


class _Selective:
    """A filter of RLlib's, called once for each episode, that learns from some of them only."""

    def __init__(self, filter_: Callable[..., Any], training: Mask) -> None:
        self._filter, self._training = filter_, iter(training.tolist())

    def __call__(self, observation: Any, update: bool = True) -> Any:
        return self._filter(observation, update=next(self._training) and update)


def _filter_savepoint(piece: MeanStdFilter) -> RestoreState:
    """Copy the arrays of RLlib's filter: its state is text, compressed, and takes longer to write than the filter takes for a row."""
    if piece._filters is None:
        piece._init_new_filters()
    before = [(filter_, tree.map_structure(RunningStat.copy, filter_.running_stats)) for filter_ in piece._filters.values()]

    def restore() -> None:
        for filter_, statistics in before:
            filter_.running_stats = statistics

    return restore


def pieces_of(pipeline: ConnectorPipelineV2) -> Iterator[ConnectorV2]:
    """List the connectors of a pipeline, those of pipelines in it too."""
    for piece in pipeline.connectors:
        if isinstance(piece, ConnectorPipelineV2):
            yield from pieces_of(piece)
        else:
            yield piece
