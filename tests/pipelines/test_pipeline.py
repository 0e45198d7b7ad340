"""A pipeline tells, records and counts every step once, whatever its server, its policy calls and its nodes do."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from policyserver.common.errors import ActionTimeoutError, EpisodeLostError, PolicyServerError, ServerUnavailableError, from_row_error
from policyserver.monitoring.action import Action
from policyserver.pipelines import baselines
from policyserver.pipelines.config import NodesConfig, PipelineConfig, PlayedEpisodesConfig, PolicyCallsConfig
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.schemes.ends.equity_ends import Ruin
from policyserver.pipelines.nodes.portfolio_node import PortfolioNode
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.prices import PricesConfig, make_source
from policyserver.pipelines.runtime.inbox import NodeConfig
from policyserver.v1 import policy_service_pb2 as pb
from tests.pipelines.pipeline_harness import Book, play
from tests.pipelines.policy_double import PolicyDouble

WAIT_S = 30.0


def config(
    *,
    concurrent: int = 8,
    steps: int | None = 2_000,
    bars: int = 20,
    nodes: NodesConfig | None = None,
    policy: PolicyCallsConfig | None = None,
    rules: RulesConfig | None = None,
) -> PipelineConfig:
    return PipelineConfig(
        seed=3,
        episodes=PlayedEpisodesConfig(concurrent=concurrent, steps=steps),
        prices=PricesConfig(bars_per_episode=bars, warmup_bars=30),
        nodes=nodes or NodesConfig(),
        policy=policy or PolicyCallsConfig(),
        rules=rules or RulesConfig(),
        stop_timeout_s=10.0,
    )


@pytest.mark.long
def test_every_step_is_told_recorded_and_counted_once() -> None:
    pipeline, service, book = play(config())
    steps = book.rows["step"]
    told = [reward for heard in service.episodes.values() for reward in heard.rewards]
    assert 2_000 <= pipeline.run.steps == len(steps) == len(told) < 2_000 + 64
    assert math.fsum(told) == pytest.approx(pipeline.reward_sum, abs=1e-9)
    assert math.fsum(row["reward"] for row in steps) == pytest.approx(pipeline.reward_sum, abs=1e-9)
    assert service.open_episodes() == []
    assert set(pipeline.run.endings) == {"truncated"}
    assert sum(pipeline.run.endings.values()) == len(service.episodes) == len(book.rows["episode"])


@pytest.mark.long
def test_an_episode_has_its_length_and_the_next_one_other_prices() -> None:
    _, service, book = play(config(bars=20))
    whole = [heard for heard in service.episodes.values() if len(heard.actions) == 20]
    assert len(whole) >= 90
    assert all(len(heard.observations) == 21 for heard in whole)
    assert len({heard.observations[0].tobytes() for heard in whole}) == len(whole)
    assert {row["length"] for row in book.rows["episode"] if "random_return" in row} == {20}


@pytest.mark.long
def test_a_reward_is_the_gain_of_the_action_on_the_bar_before() -> None:
    _, _, book = play(config(concurrent=1, steps=20, bars=20), PolicyDouble(lambda observations: np.full(len(observations), Action.BUY)))
    steps = book.rows["step"]
    (order,) = book.rows["order"]
    assert order["bar"] == 1, "an order of bar 0 is filled on bar 1"
    first = math.log((10_000.0 + order["quantity"] * (steps[1]["price"] - order["fill_price"]) - order["fee"]) / 10_000.0)
    assert steps[0]["reward"] == pytest.approx(100.0 * first)
    for step, later in itertools.pairwise(steps[1:]):
        equity = step["equity"]
        before = equity - step["position"] * (later["price"] - step["price"])
        assert step["reward"] == pytest.approx(100.0 * math.log(equity / before))


@pytest.mark.long
def test_holding_without_a_position_is_worth_nothing_and_equals_no_trade() -> None:
    pipeline, _, book = play(config(), PolicyDouble(lambda observations: np.full(len(observations), Action.HOLD)))
    assert pipeline.reward_sum == 0.0
    assert "order" not in book.rows
    results = pipeline.run.episodes.last(1.0)
    assert np.all(results["return"] == results["no_trade"])
    assert np.all(results["random_costs"] > 0)


@pytest.mark.long
def test_random_actions_played_by_the_nodes_earn_what_the_vectorised_baseline_says() -> None:
    _, service, book = play(config(concurrent=4, steps=400))
    settings = config(concurrent=4)
    source = make_source(settings.prices, settings.seed)
    checked = 0
    for row in book.rows["episode"]:
        if row["length"] == 20:
            (episode,) = source.episodes([int(row["episode"].rpartition("-")[2])])
            actions = np.array(service.episodes[row["episode"]].actions)
            result = baselines.play(Rules.of(settings.rules), source.slots, [episode], lambda block, rows, step: actions[[step]])  # noqa: B023
            assert row["return"] == pytest.approx(result.returns[0], abs=1e-9)
            assert row["profit"] == pytest.approx(result.profits[0], abs=1e-12)
            assert row["costs"] == pytest.approx(result.costs[0], abs=1e-12)
            checked += 1
    assert checked >= 16


@pytest.mark.long
def test_two_policy_threads_ask_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=WAIT_S)
    service = PolicyDouble()
    answer = service.get_actions

    def meet(episode_ids: Sequence[str], observations: Any) -> Any:
        if len(meetings) < 5:
            both.wait()  # passes only when the other thread is in its call too
            meetings.append(threading.current_thread().name)
        return answer(episode_ids, observations)

    meetings: list[str] = []
    service.get_actions = meet  # type: ignore[method-assign]
    play(config(concurrent=128, steps=2_000, nodes=NodesConfig(blocks=2)), service)
    assert set(meetings) == {"policy-1", "policy-2"}


def timeouts(first: int, last: int, *, n_episodes: int) -> Any:
    """Let `get` and `log` calls number `first` to `last` go unanswered, of the `n_episodes` that ask first.

    Episodes that begin later are answered: two policy threads don't keep in step, so the run may end in the middle of any of those.
    """
    attempts: dict[str, int] = {}

    def fail(call: str, ids: Sequence[str]) -> dict[int, PolicyServerError]:
        errors: dict[int, PolicyServerError] = {}
        if call in ("get", "log"):
            for row, name in enumerate(ids):
                attempts[name] = attempts.get(name, 0) + 1
                if first <= attempts[name] <= last and name in list(attempts)[:n_episodes]:
                    errors[row] = ActionTimeoutError("no answer")
        return errors

    return fail


@pytest.mark.long
@pytest.mark.parametrize("fallback", ["hold", "flatten"])
def test_a_late_action_is_replaced_by_the_fallback_and_reported_in_its_place(fallback: Any) -> None:
    service = PolicyDouble(lambda observations: np.full(len(observations), Action.BUY))
    service.fail = timeouts(5, 7, n_episodes=4)
    settings = config(concurrent=4, steps=400, bars=20, policy=PolicyCallsConfig(fallback=fallback))
    pipeline, _, book = play(settings, service)
    assert pipeline.fallbacks == pipeline.fallbacks_reported == 12
    for name, heard in service.episodes.items():
        rows = [row for row in book.rows["step"] if row["episode"] == name]
        assert [row["action"] for row in rows] == heard.actions[: len(rows)], "the server knows what was done"
        if heard.logged:
            assert heard.logged == [4, 5, 6]
            assert [row["bar"] for row in rows if row["fallback"]] == [4, 5, 6]
            positions = [row["position"] for row in rows]
            assert (positions[4] == 0.0) == (fallback == "flatten")
            assert positions[7] > 0, "the policy acts again"
    told = math.fsum(reward for heard in service.episodes.values() for reward in heard.rewards)
    assert told == pytest.approx(pipeline.reward_sum, abs=1e-9)


@pytest.mark.long
def test_a_lost_episode_is_counted_and_another_takes_its_slot() -> None:
    service = PolicyDouble()
    lost: set[str] = set()

    def lose(call: str, ids: Sequence[str]) -> dict[int, PolicyServerError]:
        errors: dict[int, PolicyServerError] = {}
        for row, name in enumerate(ids):
            if call == "get" and name.endswith("-1") and len(service.episodes[name].actions) == 10:
                errors[row] = EpisodeLostError("the server restarted")
                lost.add(name)
        return errors

    service.fail = lose
    pipeline, _, book = play(config(), service)
    assert pipeline.run.endings["lost"] == len(lost) == 1
    assert service.open_episodes() == list(lost)
    assert pipeline.run.steps >= 2_000
    assert [row["episode"] for row in book.rows["episode"] if row["ended"] == "lost"] == list(lost)


def test_a_run_without_a_server_waits_for_it_and_can_be_stopped() -> None:
    service = PolicyDouble()
    refused = threading.Event()

    def refuse(call: str, ids: Sequence[str]) -> None:
        refused.set()
        raise ServerUnavailableError("nobody there")

    service.fail = refuse
    with Pipeline(config(), service, Book()).running() as pipeline:
        assert refused.wait(WAIT_S)
        assert not pipeline.run.ended.is_set()
    assert pipeline.run.steps == 0
    assert pipeline.run.ended.is_set()


@pytest.mark.long
@pytest.mark.parametrize("begun", [0, 40])
def test_a_run_whose_server_ended_for_good_ends_with_that_error(begun: int) -> None:
    service = PolicyDouble()
    calls = itertools.count()

    def refuse(call: str, ids: Sequence[str]) -> None:
        if next(calls) >= begun:
            raise from_row_error(pb.RowError(code=14, reason=16, message="nobody comes back"))  # type: ignore[arg-type]

    service.fail = refuse
    pipeline = Pipeline(config(steps=None), service, Book())
    with pytest.raises(ServerUnavailableError, match="nobody comes back"), pipeline.running():
        assert pipeline.run.ended.wait(WAIT_S), "the run waits for a server that does not come"


@pytest.mark.long
def test_a_run_without_an_end_ends_when_it_is_stopped_and_tells_the_server() -> None:
    service = PolicyDouble()
    enough = threading.Event()
    answer = service.get_actions

    def count(episode_ids: Sequence[str], observations: Any) -> Any:
        if sum(len(heard.actions) for heard in service.episodes.values()) > 500:
            enough.set()
        return answer(episode_ids, observations)

    service.get_actions = count  # type: ignore[method-assign]
    book = Book()
    with Pipeline(config(steps=None), service, book).running() as pipeline:
        assert enough.wait(WAIT_S)
    assert service.open_episodes() == []
    assert {heard.ended for heard in service.episodes.values()} == {"truncated"}
    assert len(book.rows["step"]) == pipeline.run.steps > 500


@pytest.mark.long
def test_a_node_that_raises_is_restarted_and_its_episodes_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    handled = PortfolioNode._process
    failures = iter([True, False, True])

    def stumble(self: PortfolioNode, batch: list[Any]) -> None:
        if len(batch) and self.statistics().processed > 100 and next(failures, False):
            raise RuntimeError("stumbled")
        handled(self, batch)

    monkeypatch.setattr(PortfolioNode, "_process", stumble)
    pipeline, service, _ = play(config())
    statistics = {node.name: node for node in pipeline.statistics()}
    assert (statistics["portfolio"].failures, statistics["portfolio"].restarts) == (2, 2)
    assert pipeline.run.endings["abandoned"] >= 2
    assert service.open_episodes() == [], "given-up episodes are ended with the server, too"
    told = math.fsum(reward for heard in service.episodes.values() for reward in heard.rewards)
    assert told == pytest.approx(pipeline.reward_sum, abs=1e-9)


def test_a_node_that_keeps_raising_ends_the_run_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fall(self: PortfolioNode, batch: list[Any]) -> None:
        raise RuntimeError("fell over")

    monkeypatch.setattr(PortfolioNode, "_process", fall)
    nodes = NodesConfig(inbox=NodeConfig(max_restarts=1))
    with (
        pytest.raises(RuntimeError, match="fell over") as caught,
        Pipeline(config(nodes=nodes), PolicyDouble(), Book()).running() as pipeline,
    ):
        assert pipeline.wait(WAIT_S)
    assert "fall" in [entry.name for entry in caught.traceback]


@pytest.mark.long
def test_a_ruined_account_terminates_its_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ruin, "reached", lambda self, state, view, rows: view.accounts.fills[rows] > 0)
    pipeline, service, _ = play(config(concurrent=2, steps=50), PolicyDouble(lambda observations: np.full(len(observations), Action.BUY)))
    assert pipeline.run.endings["terminated"] >= 40
    assert {heard.ended for heard in service.episodes.values() if heard.actions} >= {"terminated"}
    assert all(len(heard.actions) <= 1 for heard in service.episodes.values())


@pytest.mark.long
def test_the_forecast_can_be_hidden_from_the_policy_but_is_made_all_the_same() -> None:
    observers = tuple({"name": "forecast", "shown": False} if name == "forecast" else name for name in RulesConfig().observers)
    rules = RulesConfig(observers=observers)
    names = Rules.of(rules).names(("price",))
    columns = [names.index(name) for name in ("prediction", "uncertainty")]
    _, service, book = play(config(rules=rules))
    seen = np.array([observation for heard in service.episodes.values() for observation in heard.observations])
    assert np.all(seen[:, columns] == 0.0)
    assert any(row["prediction"] for row in book.rows["step"])


@pytest.mark.long
def test_the_skill_of_the_forecasts_is_recorded_of_each_thousand_that_a_block_made() -> None:
    pipeline, _, book = play(config(concurrent=128, steps=8_000, nodes=NodesConfig(blocks=2)))
    rows = book.rows["regressor"]
    assert 6 <= len(rows) <= 8
    assert all(1_000 <= row["forecasts"] < 1_000 + 64 for row in rows)
    assert sum(row["forecasts"] for row in rows) <= pipeline.run.forecasts.count <= pipeline.run.steps
    assert all(row["skill"] == pytest.approx(1.0 - row["mse"] / row["mse_zero"]) for row in rows)
    assert {row["skipped"] for row in rows} == {0}


def test_an_inbox_too_small_for_the_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"nodes\.inbox\.capacity"):
        config(concurrent=512, nodes=NodesConfig(blocks=4, inbox=NodeConfig(capacity=3)))
