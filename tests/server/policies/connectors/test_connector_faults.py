"""A connector that fails leaves everything as if its rows had not come, refuses those rows alone, and the server goes on."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core.columns import Columns

from policyserver.common.flags import StepFlag
from policyserver.server.policies.connectors.connector_pipelines import UncopyableConnectorError
from policyserver.server.policies.connectors.connector_records import ConnectorOutputError
from tests.server.connector_harness import assert_same, player_of, random_moves, state_of, stock_policy
from tests.server.core_harness import CoreHarness, Row, module_of, observation, start
from tests.server.policy_player import Move
from tests.server.user_connectors import (
    CenterOnEverythingSeen,
    CuriousReward,
    DifferenceInTheBatch,
    Faulty,
    ScaleObservations,
    ShiftInTheBatch,
)

Fault = Callable[[Any, Any], object]


def break_down(batch: Any, episodes: Any) -> None:
    raise ZeroDivisionError("a user's mistake")


def write(value: Any) -> Fault:
    return lambda batch, episodes: episodes[-1].set_observations(new_data=value, at_indices=-1)


def write_reward(value: Any) -> Fault:
    return lambda batch, episodes: [episode.set_rewards(new_data=value, at_indices=-1) for episode in episodes if len(episode)]


def forget_a_row(batch: Any, episodes: Any) -> None:
    batch[Columns.OBS].popitem()


FAULTS: dict[str, tuple[Fault, type[Exception], str | None]] = {
    "raises": (break_down, ZeroDivisionError, "a user's mistake"),
    "shape": (write(np.zeros(3, np.float32)), ConnectorOutputError, r"observation: expected float32\[10\].* received float32\[3\]"),
    "dtype": (write(np.zeros(10, np.int64)), ConnectorOutputError, r"received int64\[10\]"),
    "structure": (write({"x": np.zeros(10)}), ConnectorOutputError, "expected an array, received a dict"),
    "infinite": (write(np.full(10, np.inf, np.float32)), ConnectorOutputError, "expected finite numbers .* received inf"),
    "reward": (write_reward(np.nan), ConnectorOutputError, "reward: expected a finite number"),
    "two rewards": (write_reward(np.zeros(2)), TypeError, None),
    "a row less": (forget_a_row, Exception, None),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("model", ["mlp", "lstm_apart"])
def test_after_a_fault_everything_is_as_if_the_rows_had_not_come(fault: str, model: str) -> None:
    action, error, match = FAULTS[fault]
    module = module_of(model)
    faulty = Faulty()
    options: dict[str, Any] = {"explore": False, "chunk_steps": 3}
    broken, fine = (
        player_of(stock_policy(module, MeanStdFilter(), CenterOnEverythingSeen(), CuriousReward(), ShiftInTheBatch(), last, **options))
        for last in (faulty, Faulty())
    )
    for number, moves in enumerate(random_moves(3, 30)):
        if number % 3 == 1 and not all(move.new for move in moves):
            before = pickle.dumps(state_of(broken.policy))
            faulty.fault = action
            with pytest.raises(error, match=match):
                broken.send(*moves)
            assert pickle.dumps(state_of(broken.policy)) == before
        assert_same(broken.send(*moves), fine.send(*moves), actions=True)


@pytest.mark.long
@pytest.mark.parametrize("model", ["mlp", "lstm_shared"])
def test_a_refused_row_can_be_sent_again(model: str) -> None:
    module = module_of(model)
    refused, fine = (player_of(stock_policy(module, ScaleObservations(), DifferenceInTheBatch(), explore=False)) for _ in range(2))
    for number, moves in enumerate(random_moves(4, 30)):
        if number % 4 != 1 or any(move.end for move in moves):
            assert_same(refused.send(*moves), fine.send(*moves), actions=True)
            continue
        kept = [place % 2 == 0 for place in range(len(moves))]
        refused.send(*moves, kept=kept)
        again = [move for move, keep in zip(moves, kept, strict=True) if not keep]
        if again:
            refused.send(*again)
        fine.send(*moves)


def test_if_all_rows_are_refused_connectors_forget_them() -> None:
    center = CenterOnEverythingSeen()
    player = player_of(stock_policy(None, center))
    player.send(Move(0, observation(10), new=True))
    player.send(Move(0, observation(70)), Move(1, observation(80), new=True), kept=[False, False])
    assert center.count == 1
    assert player.send(Move(0, observation(20))).observations[0][0, 0] == 5


def test_a_pass_that_nobody_committed_is_forgotten() -> None:
    center = CenterOnEverythingSeen()
    player = player_of(stock_policy(None, center))
    player.send(Move(0, observation(10), new=True))
    player.policy.decide(player.rows([Move(0, observation(70))]))
    assert player.send(Move(0, observation(20))).observations[0][0, 0] == 5
    assert center.count == 2


def test_trying_connectors_out_leaves_their_state_alone() -> None:
    filter_, center = MeanStdFilter(), CenterOnEverythingSeen()
    policy = stock_policy(None, filter_, center)
    assert center.count == 0
    assert filter_.get_state()[None]["running_stats"][0]["num_pushes"] == 0
    assert policy.take_metrics() == {}


@pytest.mark.parametrize("fault", ["different shapes", "text", "uncopyable", "no action", "nested output"])
def test_what_can_not_be_served_is_refused_when_the_policy_is_made(fault: str) -> None:
    class Growing(ScaleObservations):
        def preprocess(self, observation: Any, episode: Any) -> Any:
            return observation[: 10 - len(episode)]

    class Text(ShiftInTheBatch):
        def __call__(self, *, batch: Any, episodes: Any, **kwargs: Any) -> Any:
            batch = super().__call__(batch=batch, episodes=episodes)
            write("text")(batch, episodes)
            return batch

    class Uncopyable(ScaleObservations):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("cannot pickle a lock")

    class DropsActions(ShiftInTheBatch):
        def __call__(self, *, batch: Any, episodes: Any, **kwargs: Any) -> Any:
            batch["other"] = {key: [{"part": 1}] for key in batch.pop(Columns.ACTIONS)}
            batch[Columns.ACTIONS] = {}
            return batch

    class Nests(ShiftInTheBatch):
        def __call__(self, *, batch: Any, episodes: Any, **kwargs: Any) -> Any:
            batch["other"] = {key: [{"part": np.zeros(1)}] for key in batch[Columns.ACTIONS]}
            return batch

    inward: list[Any] = []
    outward: list[Any] = []
    match = None
    if fault == "different shapes":
        inward, match = [Growing(), ShiftInTheBatch()], "first and the second observation of an episode differ|shapes"
    elif fault == "text":
        inward, match = [Text()], "observation: expected numbers"
    elif fault == "uncopyable":
        inward, match = [Uncopyable()], "cannot pickle a lock"
    elif fault == "no action":
        outward = [DropsActions()]
    else:
        outward, match = [Nests()], r"expected one array in each column, received others in \['other'\]"
    error = {"uncopyable": UncopyableConnectorError}.get(fault, Exception)
    with pytest.raises(error, match=match):
        stock_policy(module_of(), *inward, outward=outward)


def test_a_connector_that_raises_refuses_its_rows_and_the_server_goes_on(
    make_harness: Callable[..., CoreHarness], caplog: pytest.LogCaptureFixture
) -> None:
    faulty = Faulty()
    harness = make_harness(stock_policy(None, faulty))
    handle = harness.one(start("a", observation(1))).handle
    faulty.fault = break_down
    row = Row(handle, 1, reward=2.0, observation=observation(2))
    assert "incident" in str(harness.refusal(row))
    assert "a user's mistake" in caplog.text
    harness.one(row)
    harness.one(Row(handle, 2, reward=1.0, observation=observation(3)))


class AlwaysFaulty(Faulty):
    """Does what it is told each time."""

    def __call__(self, *, batch: Any, episodes: Any, **kwargs: Any) -> Any:
        if self.fault is not None:
            self.fault(batch, episodes)
        return batch


def refuse_nines(batch: Any, episodes: Any) -> None:
    if any(episode.get_observations(-1)[0] == 9.0 for episode in episodes):
        raise ValueError("nine")


@pytest.mark.long
@pytest.mark.parametrize("bad", [{0}, {6}, {2, 5}, {0, 1, 2, 3, 4, 5, 6}])
def test_a_row_that_a_connector_fails_on_is_refused_alone(
    make_harness: Callable[..., CoreHarness], caplog: pytest.LogCaptureFixture, bad: set[int]
) -> None:
    faulty = AlwaysFaulty()
    harness = make_harness(stock_policy(None, faulty))
    handles = [answer.handle for answer in harness.send(*(start(str(number), observation(number)) for number in range(7)))]
    faulty.fault = refuse_nines
    rows = [Row(handle, 1, reward=1.0, observation=observation(9 if index in bad else 1)) for index, handle in enumerate(handles)]
    answers = harness.send(*rows)
    assert {index for index, answer in enumerate(answers) if answer.error} == bad
    assert caplog.text.count("could not be answered together") == 1
    assert harness.core.snapshot().rows_failed == len(bad)
    assert harness.core.snapshot().reward_sum == 7 - len(bad)
    faulty.fault = None
    for index, handle in enumerate(handles):
        if index in bad:
            harness.one(rows[index])
        harness.one(Row(handle, 2, StepFlag.TERMINATED, 1.0, observation(2)))
    assert [episode.get_rewards().tolist() for episode in harness.segments()] == [[1.0, 1.0]] * 7


@pytest.mark.long
def test_a_pass_that_fails_for_every_row_is_not_tried_for_each(make_harness: Callable[..., CoreHarness]) -> None:
    tries = []

    def count(batch: Any, episodes: Any) -> None:
        tries.append(len(episodes))
        raise ValueError("always")

    faulty = AlwaysFaulty()
    harness = make_harness(stock_policy(None, faulty))
    handles = [answer.handle for answer in harness.send(*(start(str(number)) for number in range(200)))]
    faulty.fault = count
    assert all(answer.error for answer in harness.send(*(Row(handle, 1, observation=observation(1)) for handle in handles)))
    assert len(tries) <= 65
    assert harness.core.snapshot().rows_failed == 200
