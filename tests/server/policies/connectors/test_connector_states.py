"""Filters' statistics on their way between env runners: every row counts once, however states travel."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
from ray.rllib.connectors.env_to_module import EnvToModulePipeline, FlattenObservations, MeanStdFilter
from ray.rllib.utils.filter import RunningStat

from policyserver.server.policies.connectors.connector_states import adopt_state, export_state

SPACES: dict[str, gym.Space[Any]] = {
    "vector": gym.spaces.Box(-1e6, 1e6, (3,), np.float32),
    "matrix": gym.spaces.Box(-1e6, 1e6, (2, 3), np.float32),
    "number": gym.spaces.Box(-1e6, 1e6, (), np.float32),
}


class Runner:
    """An env runner's pipeline, and all that its filter saw."""

    def __init__(self, space: gym.Space[Any], *, flattens: bool = False, seed: int = 0) -> None:
        self.filter = MeanStdFilter()
        connectors = [FlattenObservations(), self.filter] if flattens else [self.filter]
        self.pipeline = EnvToModulePipeline(input_observation_space=space, input_action_space=gym.spaces.Discrete(2), connectors=connectors)
        self.pipeline.get_state()  # makes the filters
        self.random = np.random.default_rng(seed)
        self.seen: list[Any] = []

    def see(self, rows: int, center: float = 100.0) -> None:
        """Push rows one by one, as RLlib's filter itself does."""
        for _ in range(rows):
            self.seen.append(np.asarray(self.random.normal(center, 2.0, self.filter.observation_space.shape), np.float32))
            self.filter._filters[None](self.seen[-1])

    @property
    def statistic(self) -> RunningStat:
        return self.filter._filters[None].running_stats


def merge(local: Runner, states: list[dict[str, Any]]) -> dict[str, Any]:
    """Do what RLlib's driver does: merge states that came from other processes in the local pipeline, and send the result round."""
    merged: dict[str, Any] = local.pipeline.merge_states([pickle.loads(pickle.dumps(state)) for state in states])
    local.pipeline.set_state(merged)
    return pickle.loads(pickle.dumps(merged))  # type: ignore[no-any-return]


def check_all_seen(statistic: RunningStat, *runners: Runner) -> None:
    rows = np.stack([row for runner in runners for row in runner.seen]).astype(np.float64)
    assert statistic.num_pushes == len(rows)
    np.testing.assert_allclose(statistic.mean, rows.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(statistic.std, rows.std(axis=0, ddof=1), rtol=1e-6)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("flattens", [False, True])
def test_round_after_round_everybody_knows_all_rows(space: str, flattens: bool) -> None:
    local, *remote = (Runner(SPACES[space], flattens=flattens, seed=seed) for seed in range(3))
    for round_ in range(4):
        for number, runner in enumerate(remote):
            runner.see(0 if round_ == 2 and number == 1 else 30 + 10 * number, center=100.0 + 50 * round_ * number)
        merged = merge(local, [export_state(runner.pipeline) for runner in remote])
        for runner in remote:
            adopt_state(runner.pipeline, merged, keep_delta=True)
        for runner in (local, *remote):
            check_all_seen(runner.statistic, *remote)


def test_rllib_alone_gets_this_wrong() -> None:
    """The day this fails, RLlib has put it right, and `connector_states` may go."""
    local, *remote = (Runner(SPACES["vector"], seed=seed) for seed in range(3))
    for _ in range(2):
        for runner in remote:
            runner.see(50)
        merged = merge(local, [runner.pipeline.get_state() for runner in remote])
        for runner in remote:
            runner.pipeline.set_state(merged)
    assert local.statistic.num_pushes == 200
    np.testing.assert_allclose(local.statistic.mean, 50.0, atol=1.0)  # all that was seen is near 100
    local, *remote = (Runner(SPACES["vector"], flattens=True, seed=seed) for seed in range(3))
    for runner in remote:
        runner.see(50)
    assert merge(local, [runner.pipeline.get_state() for runner in remote]) == {"MeanStdFilter": {}}
    local, *remote = (Runner(SPACES["matrix"], seed=seed) for seed in range(3))
    with pytest.raises(ValueError, match="truth value"):
        merge(local, [runner.pipeline.get_state() for runner in remote])


def test_rows_that_come_while_states_travel_are_kept_and_counted_once() -> None:
    local, *remote = (Runner(SPACES["vector"], seed=seed) for seed in range(3))
    for _ in range(3):
        states = []
        for runner in remote:
            runner.see(20)
            states.append(export_state(runner.pipeline))
            runner.see(7, center=-300.0)
        merged = merge(local, states)
        for runner in remote:
            adopt_state(runner.pipeline, merged, keep_delta=True)
            assert runner.statistic.num_pushes == local.statistic.num_pushes + 7
    merge(local, [export_state(runner.pipeline) for runner in remote])
    check_all_seen(local.statistic, *remote)


def test_states_that_come_twice_or_whose_answer_is_lost_count_once() -> None:
    local, runner = (Runner(SPACES["vector"], seed=seed) for seed in range(2))
    for _ in range(3):
        runner.see(11)
        first = export_state(runner.pipeline)
        runner.see(5, center=0.0)
        merge(local, [first, export_state(runner.pipeline)])
    check_all_seen(local.statistic, runner)
    check_all_seen(runner.statistic, runner)


def test_a_restored_state_is_taken_as_it_is() -> None:
    saved, runner = Runner(SPACES["vector"], seed=1), Runner(SPACES["vector"], seed=2)
    saved.see(40)
    state = pickle.loads(pickle.dumps(export_state(saved.pipeline)))
    runner.see(25, center=-1.0)
    adopt_state(runner.pipeline, state, keep_delta=False)
    check_all_seen(runner.statistic, saved)
    runner.see(3)
    saved.seen += runner.seen[25:]
    check_all_seen(runner.statistic, saved)


def test_exporting_changes_nothing_that_is_served() -> None:
    runner = Runner(SPACES["vector"])
    runner.see(9)
    before = runner.filter._filters[None](np.ones(3, np.float32), update=False)
    export_state(runner.pipeline)
    np.testing.assert_array_equal(runner.filter._filters[None](np.ones(3, np.float32), update=False), before)


def test_other_connectors_states_pass_unchanged() -> None:
    class Counter(FlattenObservations.func):  # type: ignore[misc]
        count = 3

        def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return {"count": self.count}

        def set_state(self, state: dict[str, Any]) -> None:
            self.count = state["count"]

    pipeline: ConnectorPipelineV2 = EnvToModulePipeline(
        input_observation_space=SPACES["matrix"], input_action_space=gym.spaces.Discrete(2), connectors=[Counter()]
    )
    assert export_state(pipeline) == {"Counter": {"count": 3}}
    adopt_state(pipeline, {"Counter": {"count": 8}}, keep_delta=True)
    assert export_state(pipeline) == {"Counter": {"count": 8}}
