"""Rows of several policies in one batch: each is decided by its own net, state and filter, and one commit applies them all."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.connectors.env_to_module import MeanStdFilter

from policyserver.common.errors import PolicyUnknownError, ServerOverloadedError
from policyserver.common.flags import StepFlag
from policyserver.server.episodes.received_rows import PolicyWanted
from policyserver.server.policies.named import shadow as shadow_module
from policyserver.server.policies.named.named_policies import NamedPolicies
from policyserver.server.policies.vectorized.mean_std_filter import VectorizedMeanStdFilter
from policyserver.server.policies.vectorized.vectorized_policy import VectorizedPolicy
from tests.parity.rows import pipeline_of
from tests.server.core_harness import OBSERVATION, Answer, Array, CoreHarness, Row, module_of, pack, policy_of, start

MODELS = ["mlp", "lstm_shared"]
TERMINATED = StepFlag.TERMINATED
STEPS = 7


def other_module(model: str, seed: int) -> Any:
    """A module with other weights, far from the first one's."""
    torch.manual_seed(seed)
    module = module_of(model)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def filter_of(seen: float) -> VectorizedMeanStdFilter:
    """A filter that has seen values near a number."""
    piece = MeanStdFilter()
    pipeline_of(OBSERVATION, piece)
    connector = VectorizedMeanStdFilter(piece)
    random = np.random.default_rng(int(abs(seen)))
    statistic = pipeline_statistics(piece)
    for _ in range(20):
        statistic.push(random.normal(seen, 2.0, OBSERVATION.shape))
    return connector


def pipeline_statistics(piece: MeanStdFilter) -> Any:
    piece.get_state()  # makes the filters
    assert piece._filters is not None
    return piece._filters[None].running_stats


def policies_of(model: str, **options: Any) -> NamedPolicies:
    """The policy that learns, with a filter, and two others."""
    torch.manual_seed(0)
    live = policy_of(module_of(model), connectors=[filter_of(0.0)], **options)
    policies = NamedPolicies(live, most_versions=2)
    for number, name in enumerate(("first", "second"), start=1):
        weights = other_module(model, number).get_state()
        policies.add(name, live.with_weights([filter_of(5.0 * number)], weights, 100 * number, 0))
    return policies


class Player:
    """Plays episodes that want policies, all in one message or each in its own."""

    def __init__(self, harness: CoreHarness, *, together: bool) -> None:
        self.harness, self._together = harness, together
        self.handles: dict[str, int] = {}

    def step(self, rows: dict[str, Row], wants: dict[str, PolicyWanted] | None = None) -> dict[str, Answer]:
        parts = [list(rows)] if self._together else [[name] for name in rows]
        answers: dict[str, Answer] = {}
        for names in parts:
            packed = pack([rows[name] for name in names], flags=int(StepFlag.NO_WAIT))
            packed.wants = [wants[name] for name in names] if wants else []
            replies = self.harness.loop.run_until_complete(
                self.harness.on_loop(lambda packed=packed: self.harness.core.submit(packed, self.harness.client))  # type: ignore[misc]
            )
            for row, name in enumerate(names):
                answers[name] = Answer(
                    int(replies.handles[row]),
                    replies.actions[0][row],
                    float(replies.log_probs[row]),
                    int(replies.weights_seq_nos[row]),
                    replies.refusals.get(row),
                )
        return answers

    def begin(self, wants: dict[str, PolicyWanted], observations: dict[str, Array]) -> dict[str, Answer]:
        answers = self.step({name: start(name, observations[name]) for name in wants}, wants)
        self.handles = {name: answer.handle for name, answer in answers.items()}
        return answers

    def go_on(self, number: int, observations: dict[str, Array], flags: int = 0) -> dict[str, Answer]:
        return self.step({name: Row(handle, number, flags, 1.0, observations[name]) for name, handle in self.handles.items()})


WANTS = {
    "a": PolicyWanted(),
    "b": PolicyWanted("first"),
    "c": PolicyWanted("live", greedy=True),
    "d": PolicyWanted("second", greedy=True),
    "e": PolicyWanted("first"),
    "f": PolicyWanted("live@start"),
}


def observations(step: int) -> dict[str, Array]:
    random = np.random.default_rng(step)
    return {name: random.normal(0, 3, 10).astype(np.float32) for name in WANTS}


def played(player: Player) -> list[dict[str, Answer]]:
    answers = [player.begin(WANTS, observations(0))]
    answers += [player.go_on(step, observations(step)) for step in range(1, STEPS)]
    return [*answers, player.go_on(STEPS, observations(STEPS), int(TERMINATED))]


@pytest.mark.parametrize("model", MODELS)
def test_a_row_gets_the_same_answer_whatever_stands_beside_it(model: str, make_harness: Callable[..., CoreHarness]) -> None:
    together, apart = (Player(make_harness(policies_of(model)), together=together) for together in (True, False))
    for mixed, alone in zip(played(together), played(apart), strict=True):
        for name, answer in mixed.items():
            assert answer.error is None, answer.error
            if name in ("b", "d", "e"):  # whose filters are frozen: nothing that happens beside them may change them
                assert answer.action == alone[name].action
                assert answer.log_prob == pytest.approx(alone[name].log_prob, abs=1e-6)
    assert {name: answer.weights_seq_no for name, answer in mixed.items()} == dict.fromkeys(WANTS, 0)  # ends have no action


@pytest.mark.parametrize("model", MODELS)
def test_each_policy_decides_as_it_does_where_it_is_the_only_one(model: str, make_harness: Callable[..., CoreHarness]) -> None:
    mixed = played(Player(make_harness(policies_of(model)), together=True))
    for name, wanted in WANTS.items():
        if wanted.name in ("first", "second"):
            number = 1 + (wanted.name == "second")
            module = other_module(model, number)
            only: VectorizedPolicy = policy_of(module, connectors=[filter_of(5.0 * number).as_it_is()], explore=not wanted.greedy)
            harness = make_harness(only)
            handle = 0
            for step in range(STEPS):
                row = Row(handle, step, reward=1.0, observation=observations(step)[name]) if step else start(name, observations(0)[name])
                answer = harness.one(row)
                handle = answer.handle
                assert mixed[step][name].action == answer.action
                assert mixed[step][name].log_prob == pytest.approx(answer.log_prob, abs=1e-5)
                assert mixed[step][name].weights_seq_no == 100 * number


def test_only_exploring_episodes_of_the_policy_that_learns_reach_the_learner(make_harness: Callable[..., CoreHarness]) -> None:
    harness = make_harness(policies_of("lstm_shared"))
    played(Player(harness, together=True))
    segments = harness.segments()
    assert [len(segment) for segment in segments] == [STEPS]
    assert harness.core.snapshot().steps_untrained == STEPS * (len(WANTS) - 1)


def test_the_filter_of_the_policy_that_learns_learns_from_its_exploring_rows_alone(make_harness: Callable[..., CoreHarness]) -> None:
    policies = policies_of("mlp")
    (connector,) = policies.live._connectors
    assert isinstance(connector, VectorizedMeanStdFilter)
    before = connector.frozen()
    count = pipeline_statistics(connector._connector).num_pushes
    played(Player(make_harness(policies), together=True))
    assert pipeline_statistics(connector._connector).num_pushes == count + STEPS + 1
    assert not np.array_equal(before.mean, connector.frozen().mean)


def test_an_unknown_policy_is_an_error_of_its_episode_alone(make_harness: Callable[..., CoreHarness]) -> None:
    harness = make_harness(policies_of("mlp"))
    player = Player(harness, together=True)
    answers = player.begin({"a": PolicyWanted(), "b": PolicyWanted("third")}, observations(0))
    assert answers["a"].error is None
    error = answers["b"].error
    assert isinstance(error, PolicyUnknownError)
    assert str(error) == "policy: expected one of live, live@start, first, second, received 'third'"
    answers = player.step({"b": start("b", observations(0)["b"])}, {"b": PolicyWanted("first")})
    assert answers["b"].error is None, "the same episode may begin with another one"


def test_a_repeated_start_is_answered_as_before_and_one_for_another_policy_is_refused(make_harness: Callable[..., CoreHarness]) -> None:
    player = Player(make_harness(policies_of("mlp")), together=True)
    row = {"b": start("b", observations(0)["b"])}
    first, again = (player.step(row, {"b": PolicyWanted("first")})["b"] for _ in range(2))
    assert (first.handle, first.action, first.weights_seq_no) == (again.handle, again.action, 100)
    error = player.step(row, {"b": PolicyWanted("second")})["b"].error
    assert error is not None
    assert error.reason == "EPISODE_DUPLICATE"


def serve_version(policies: NamedPolicies, number: int) -> None:
    policies.load_spare(other_module("lstm_shared", 10 + number).state_dict())
    policies.swap(number)


def test_an_episode_that_keeps_its_version_acts_as_if_nothing_newer_came(make_harness: Callable[..., CoreHarness]) -> None:
    policies, never = policies_of("lstm_shared"), policies_of("lstm_shared")
    changing, still = Player(make_harness(policies), together=True), Player(make_harness(never), together=True)
    wants = {"f": PolicyWanted("live@start"), "a": PolicyWanted("live")}
    for player in (changing, still):
        player.begin(wants, observations(0))
    for step in range(1, STEPS):
        if step in (2, 3, 5):
            serve_version(policies, step)
        ours, theirs = changing.go_on(step, observations(step)), still.go_on(step, observations(step))
        assert (ours["f"].action, ours["f"].weights_seq_no) == (theirs["f"].action, 0)
        assert ours["f"].log_prob == pytest.approx(theirs["f"].log_prob, abs=1e-6)
        assert ours["a"].weights_seq_no == max(number for number in (0, 2, 3, 5) if number <= step)
    assert ours["a"].log_prob != pytest.approx(theirs["a"].log_prob, abs=1e-6)


def test_only_so_many_versions_are_held(make_harness: Callable[..., CoreHarness]) -> None:
    policies = policies_of("lstm_shared")
    player = Player(make_harness(policies), together=True)
    pinned = {"f": PolicyWanted("live@start")}
    handles = []
    for version in (1, 2):
        serve_version(policies, version)
        handles.append(player.step({"f": start(f"pinned {version}", observations(0)["f"])}, pinned)["f"].handle)
    serve_version(policies, 3)
    row = {"f": start("pinned 3", observations(0)["f"])}
    error = player.step(row, pinned)["f"].error
    assert isinstance(error, ServerOverloadedError)
    assert (error.reason, "of at most 2 versions at once" in str(error)) == ("TOO_MANY_VERSIONS", True)
    player.handles = {"f": handles[0]}
    player.go_on(1, observations(1), int(TERMINATED))
    assert player.step(row, pinned)["f"].weights_seq_no == 3, "the version of the episode that ended is held no longer"


def test_a_dropped_policy_goes_on_for_its_open_episodes(make_harness: Callable[..., CoreHarness]) -> None:
    policies = policies_of("mlp")
    player = Player(make_harness(policies), together=True)
    player.begin({"b": PolicyWanted("first")}, observations(0))
    assert policies.drop("first")
    assert not policies.drop("first")
    assert player.go_on(1, observations(1))["b"].weights_seq_no == 100
    error = player.step({"e": start("e", observations(0)["e"])}, {"e": PolicyWanted("first")})["e"].error
    assert isinstance(error, PolicyUnknownError)
    player.go_on(2, observations(2), int(TERMINATED))
    assert [other.name for other in policies._others.values()] == ["second"]


# What is trained on ----------------------------------------------------------------------------------------------------------------------


def lengths_at_the_learner(policies: NamedPolicies, make_harness: Callable[..., CoreHarness]) -> dict[str, int]:
    """Play the episodes of `WANTS` and return how many steps of each arrive at the learner, by the first element of its observations."""
    harness = make_harness(policies)
    player = Player(harness, together=True)
    marks = {name: np.full(10, float(number), np.float32) for number, name in enumerate(WANTS)}
    player.begin(WANTS, marks)
    for step in range(1, STEPS):
        player.go_on(step, marks)
    player.go_on(STEPS, marks, int(TERMINATED))
    names = list(WANTS)
    found: dict[str, int] = {}
    for segment in harness.segments():
        name = names[round(float(segment.get_observations(0)[0]))]
        found[name] = found.get(name, 0) + len(segment)
    return found


def plain_policies(*, replays: bool) -> NamedPolicies:
    """Without connectors, so that observations arrive as they were sent."""
    torch.manual_seed(0)
    live = policy_of(module_of("mlp"), replays=replays)
    policies = NamedPolicies(live)
    for number, name in enumerate(("first", "second"), start=1):
        policies.add(name, live.with_weights([], other_module("mlp", number).get_state(), 100 * number, 0))
    return policies


def test_an_on_policy_learner_gets_exploring_live_episodes_alone(make_harness: Callable[..., CoreHarness]) -> None:
    assert lengths_at_the_learner(plain_policies(replays=False), make_harness) == {"a": STEPS}


def test_a_learner_with_a_replay_buffer_gets_them_all(make_harness: Callable[..., CoreHarness]) -> None:
    assert lengths_at_the_learner(plain_policies(replays=True), make_harness) == dict.fromkeys(WANTS, STEPS)


def test_a_replay_buffer_gets_no_observations_that_another_filter_made(make_harness: Callable[..., CoreHarness]) -> None:
    harness = make_harness(policies_of("mlp", replays=True))
    played(Player(harness, together=True))
    assert sum(len(segment) for segment in harness.segments()) == 2 * STEPS, "a and c, which the live filter saw"


# Traffic ---------------------------------------------------------------------------------------------------------------------------------


def test_episodes_that_name_none_are_divided_by_their_ids(make_harness: Callable[..., CoreHarness]) -> None:
    policies = policies_of("mlp")
    divided = NamedPolicies(policies.live, shares={"live": 0.75, "first": 0.25})
    divided.add("first", policies.loaded()[0].policy)
    chosen = [divided.choose("", f"episode-{number}", greedy=False).name for number in range(2000)]
    assert chosen == [divided.choose("", f"episode-{number}", greedy=False).name for number in range(2000)]
    assert chosen.count("first") == pytest.approx(500, abs=70)
    assert {divided.choose("live", f"episode-{number}", greedy=False).name for number in range(50)} == {"live"}
    divided.drop("first")
    assert {divided.choose("", f"episode-{number}", greedy=False).name for number in range(50)} == {"live"}


@pytest.mark.parametrize("model", MODELS)
def test_a_shadow_decides_as_if_it_served_and_changes_nothing(model: str, make_harness: Callable[..., CoreHarness]) -> None:
    shadowed, alone = policies_of(model), policies_of(model)
    watching = NamedPolicies(shadowed.live, shadow="first")
    watching.add("first", shadowed.loaded()[0].policy)
    with_shadow, without = (Player(make_harness(policies), together=True) for policies in (watching, alone))
    wants = {"a": PolicyWanted(), "e": PolicyWanted("live")}
    for player in (with_shadow, without):
        player.begin(wants, observations(0))
    would: dict[str, list[int]] = {name: [] for name in wants}
    named = Player(make_harness(policies_of(model)), together=True)
    first = named.begin(dict.fromkeys(wants, PolicyWanted("first")), observations(0))
    for name, answer in first.items():
        would[name].append(int(answer.action))
    for step in range(1, STEPS):
        ours, theirs = with_shadow.go_on(step, observations(step)), without.go_on(step, observations(step))
        assert {name: answer.action for name, answer in ours.items()} == {name: answer.action for name, answer in theirs.items()}
        for name, answer in named.go_on(step, observations(step)).items():
            would[name].append(int(answer.action))
    assert watching.shadow is not None
    (figures,) = with_shadow.harness.core.snapshot().policies
    recorded = watching.shadow.take()
    of_a = [int(each.shadow[0]) for each in recorded]
    assert of_a == would["a"], "with its own recurrent state and filter"
    assert (figures.policy, figures.actions) == ("first shadow", 2 * STEPS)
    sent, shadow = (np.concatenate([getattr(each, name) for each in recorded]) for name in ("sent", "shadow"))
    assert figures.agreement == pytest.approx(np.mean(sent == shadow))
    assert [episode for each in recorded for episode in each.episodes] == [("client", "a"), ("client", "e")] * STEPS


def test_a_shadow_that_fails_is_left_out_counted_and_logged_once_a_minute(
    make_harness: Callable[..., CoreHarness], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = NamedPolicies(policies_of("mlp").live, shadow="first")
    watching.add("first", policies_of("mlp").loaded()[0].policy)
    player = Player(make_harness(watching), together=True)
    player.begin({"a": PolicyWanted(), "e": PolicyWanted()}, observations(0))
    clock = [100.0]
    monkeypatch.setattr(shadow_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(watching.loaded()[0].policy, "_net", None)
    for step, clock[0] in ((1, 100.0), (2, 130.0), (3, 161.0), (4, 170.0)):
        assert not any(answer.error for answer in player.go_on(step, observations(step)).values()), "the others go on"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "the shadow first could not decide 2 rows, 2 since it began; it is left out where it can't",
        "the shadow first could not decide 4 rows, 6 since it began; it is left out where it can't",
    ]
    stats = player.harness.core.snapshot()
    (figures,) = stats.policies
    assert (figures.policy, figures.actions, figures.rows_failed, stats.shadow_rows_failed) == ("first shadow", 2, 8, 8)


def test_figures_are_kept_by_policy(make_harness: Callable[..., CoreHarness]) -> None:
    harness = make_harness(policies_of("mlp"))
    played(Player(harness, together=True))
    figures = {each.policy: (each.episodes_finished, each.actions, each.return_mean) for each in harness.core.snapshot().policies}
    one = (1, STEPS, float(STEPS))
    assert figures == {
        "live": one,
        "first": (2, 2 * STEPS, float(STEPS)),
        "live greedy": one,
        "second greedy": one,
        "live@start": one,
    }
    assert harness.core.snapshot().return_mean == STEPS
    ended, _ = harness.core.ended.take()
    assert [(each.decided_by, each.greedy, each.trained) for each in ended] == [
        ("live", False, True), ("first", False, False), ("live", True, False), ("second", True, False), ("first", False, False),
        ("live@start", False, False),
    ]  # fmt: skip
