"""What is recorded of a policy that shadows is beside what was sent, and its recurrent state is of the episode that it decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from policyserver.common.flags import StepFlag
from policyserver.server.episodes.demand import Demand
from policyserver.server.policies.named.named_policies import NamedPolicies
from policyserver.server.policies.policy import StepRows
from policyserver.server.policies.vectorized.vectorized_policy import VectorizedPolicy
from tests.server.core_harness import Array, CoreHarness, Row, module_of, observation, policy_of, start

Make = Callable[..., CoreHarness]
GIVEN = StepFlag.ACTION_GIVEN
N = 8


def shadowed(model: str) -> NamedPolicies:
    torch.manual_seed(0)
    live = policy_of(module_of(model))
    policies = NamedPolicies(live, shadow="candidate")
    load(policies, seed=5)
    return policies


def load(policies: NamedPolicies, seed: int) -> None:
    torch.manual_seed(seed)
    policies.add("candidate", policies.live.with_weights([], module_of(policies_model(policies)).get_state(), seed, 0))


def policies_model(policies: NamedPolicies) -> str:
    return "lstm_shared" if policies.live.initial_state else "mlp"


def recorded(policies: NamedPolicies) -> list[tuple[str, int, int]]:
    """Return episode, step and what the record says was sent."""
    assert policies.shadow is not None
    return [
        (episode, step, sent)
        for each in policies.shadow.take()
        for (_, episode), step, sent in zip(each.episodes, each.steps.tolist(), each.sent.tolist(), strict=True)
    ]


@pytest.mark.long
@pytest.mark.parametrize("newer", [False, True])
def test_the_action_of_a_question_that_waited_is_recorded_beside_the_one_that_was_sent(make_harness: Make, newer: bool) -> None:
    policies = shadowed("mlp")
    harness = make_harness(policies, demand=Demand(fragment_steps=N))
    random = np.random.default_rng(0)
    sent, rows = [], {}
    for number in range(N):
        answer = harness.one(start(f"{number}", random.normal(0, 3, 10).astype(np.float32)))
        sent.append((f"{number}", 0, int(answer.action)))
        rows[number] = Row(answer.handle, 1, 0, 1.0, random.normal(0, 3, 10).astype(np.float32))
    harness.on_loop(lambda: harness.core.sample(N, 100.0, lambda blocks: None))
    answers = {number: harness.send(row)[0] for number, row in rows.items()}
    held = [number for number, answer in answers.items() if answer.error is not None]
    assert held
    harness.settle()
    harness.advance(2.0)
    if newer:
        policies.load_spare({name: 2 * torch.randn_like(value) for name, value in module_of("mlp").state_dict().items()})
        harness.on_loop(lambda: harness.core.serve_weights(2))
    sent += [(f"{number}", 1, int(answer.action)) for number, answer in answers.items() if answer.error is None]
    first = recorded(policies)
    assert first == sent, "of those that wait nothing is recorded yet"
    late = []
    for number in held:
        answer = harness.one(rows[number] if newer else replace(rows[number], flags=StepFlag.NO_WAIT))
        assert answer.weights_seq_no == (2 if newer else 0)
        late.append((f"{number}", 1, int(answer.action)))
    assert recorded(policies) == late
    (figures,) = policies.shadow_figures()
    assert figures.actions == 2 * N


def test_nothing_is_recorded_of_a_question_that_waited_and_was_never_answered(make_harness: Make) -> None:
    policies = shadowed("mlp")
    harness = make_harness(policies, demand=Demand(fragment_steps=1))
    handle = harness.one(start("a", observation(0, 0))).handle
    row = Row(handle, 1, reward=1.0, observation=observation(0, 1))
    assert harness.refusal(row).reason == "LEARNER_BEHIND"
    harness.one(Row(handle, 1, GIVEN | StepFlag.OVERRIDE, 1.0, observation(0, 1), action=2))
    assert [step for _, step, _ in recorded(policies)] == [0], "its client chose the action itself"
    harness.one(Row(handle, 2, StepFlag.TERMINATED, 1.0, observation(0, 2)))
    assert recorded(policies) == []


def test_rows_that_all_bring_their_actions_are_applied_and_not_recorded(make_harness: Make) -> None:
    policies = shadowed("mlp")
    harness = make_harness(policies)
    handle = harness.one(start("a", observation(0, 0), flags=GIVEN, action=1)).handle
    harness.one(Row(handle, 1, GIVEN, 1.0, observation(0, 1), action=1))
    assert recorded(policies) == []
    (answer,) = harness.send(Row(handle, 2, 0, 1.0, observation(0, 2)))
    assert recorded(policies) == [("a", 2, int(answer.action))]


class StatesGiven:
    """Notes the states from which a policy decides; fails while it is told to."""

    def __init__(self, policies: NamedPolicies, monkeypatch: pytest.MonkeyPatch) -> None:
        (other,) = policies.loaded()
        self.policy, self._decide = other.policy, other.policy.decide
        self.fails = False
        self.given: list[Array] = []
        monkeypatch.setattr(self.policy, "decide", self._noted)

    def _noted(self, rows: StepRows) -> Any:
        if self.fails:
            raise RuntimeError("a net that is broken")
        self.given.append(np.concatenate([leaf.ravel() for leaf in rows.state]))
        return self._decide(rows)


def play(harness: CoreHarness, episode_id: str, steps: int) -> None:
    handle = harness.one(start(episode_id, observation(5, 5))).handle
    for number in range(1, steps):
        harness.one(Row(handle, number, 0, 1.0, observation(5, number)))
    harness.one(Row(handle, steps, StepFlag.TERMINATED, 1.0))


def test_an_episode_whose_first_row_failed_goes_on_with_its_own_state(make_harness: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = shadowed("lstm_shared")
    harness = make_harness(policies)
    play(harness, "one", 4)
    states = StatesGiven(policies, monkeypatch)
    states.fails = True
    handle = harness.one(start("two", observation(0, 1))).handle
    states.fails = False
    for number in (1, 2):
        harness.one(Row(handle, number, 0, 1.0, observation(0, number)))
    assert [bool(state.any()) for state in states.given] == [False, True]


def test_another_policy_under_the_name_goes_on_with_no_state_of_the_first(make_harness: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = shadowed("lstm_shared")
    harness = make_harness(policies)
    handle = harness.one(start("one", observation(5, 5))).handle
    harness.one(Row(handle, 1, 0, 1.0, observation(5, 1)))
    policies.drop("candidate")
    load(policies, seed=6)
    states = StatesGiven(policies, monkeypatch)
    for number in (2, 3):
        harness.one(Row(handle, number, 0, 1.0, observation(5, number)))
    assert [bool(state.any()) for state in states.given] == [False, True]


def test_an_episode_that_began_while_no_policy_had_the_name_has_no_state_of_the_one_before(
    make_harness: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = shadowed("lstm_shared")
    harness = make_harness(policies)
    play(harness, "one", 4)
    policy: VectorizedPolicy = policies.loaded()[0].policy
    monkeypatch.setattr(policies.shadow, "name", "nobody")
    handle = harness.one(start("two", observation(0, 1))).handle
    monkeypatch.setattr(policies.shadow, "name", "candidate")
    assert policies.loaded()[0].policy is policy
    states = StatesGiven(policies, monkeypatch)
    harness.one(Row(handle, 1, 0, 1.0, observation(0, 1)))
    assert not states.given[0].any()
