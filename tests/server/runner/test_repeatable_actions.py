"""The same seed, weights, episode ids and observations give the same actions, however the rows are batched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from policyserver.common.flags import StepFlag
from tests.server.core_harness import CoreHarness, Row, start
from tests.server.drawing_policies import CASES, policy_of
from tests.server.external_env_harness import in_thread, serving_env
from tests.server.serving_loop_harness import running_serving_loop

EPISODES, STEPS = 40, 6
OBSERVATIONS = np.random.default_rng(4).normal(size=(EPISODES, STEPS, 10)).astype(np.float32)


def played(name: str, backend: Any, rows_at_once: int, *, seed: int = 3, global_seed: int = 0, ids: str = "episode") -> Any:
    """Play episodes, in each step so many of them in a message, in an order of its own. Returns [episodes, steps, ...]."""
    harness = CoreHarness(policy_of(name, backend, seed), action_space=CASES[name][1])
    torch.manual_seed(global_seed)
    order = np.random.default_rng(global_seed).permutation(EPISODES)
    handles, actions = [0] * EPISODES, np.zeros((EPISODES, STEPS, *CASES[name][1].sample().shape))
    for step in range(STEPS):
        for first in range(0, EPISODES, rows_at_once):
            picked = order[first : first + rows_at_once].tolist()
            rows = [
                Row(handles[index], step, observation=OBSERVATIONS[index, step])
                if step
                else start(f"{ids} {index}", OBSERVATIONS[index, step])
                for index in picked
            ]
            for index, answer in zip(picked, harness.send(*rows), strict=True):
                assert answer.error is None
                handles[index], actions[index, step] = answer.handle, answer.action
    harness.close()
    return actions


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_draw_falls_whatever_the_batching(name: str, backend: str) -> None:
    whole, apart, some = (played(name, backend, rows, global_seed=rows) for rows in (EPISODES, 1, 7))
    np.testing.assert_allclose(apart, whole, atol=1e-5)
    np.testing.assert_allclose(some, whole, atol=1e-5)
    assert len(np.unique(whole)) > 1


@pytest.mark.long
def test_other_seeds_and_other_ids_draw_otherwise() -> None:
    actions = [played("discrete", "numpy", EPISODES, seed=seed, ids=ids) for seed, ids in ((3, "episode"), (4, "episode"), (3, "trial"))]
    for other in actions[1:]:
        assert 0.5 < (actions[0] != other).mean() < 0.95


@pytest.mark.long
def test_both_backends_draw_alike() -> None:
    np.testing.assert_array_equal(played("discrete", "numpy", EPISODES), played("discrete", "torch", 9))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["discrete", "multi-discrete", "box", "squashed box"])
def test_draws_have_rllibs_own_distribution(name: str) -> None:
    """Against a large sample of RLlib's: the same means and spreads of each part of the action, to what chance allows."""
    harness = CoreHarness(policy_of(name, "torch"), action_space=CASES[name][1])
    rows = 20_000
    policy: Any = harness.policy
    out, _ = policy._pass.run([np.repeat(OBSERVATIONS[0, :1], rows, axis=0)], [])
    inputs = torch.from_numpy(out["action_dist_inputs"])
    torch.manual_seed(5)
    theirs = policy._net.distribution_class.from_logits(inputs).sample().numpy().reshape(rows, -1)
    harness.close()
    drawn = []
    for first in range(0, rows, 250):
        again = CoreHarness(policy, action_space=CASES[name][1])
        answers = again.send(*[start(f"{first + index}", OBSERVATIONS[0, 0]) for index in range(250)])
        drawn += [np.asarray(policy._form.from_environment(np.asarray(answer.action)[None])[0]).ravel() for answer in answers]
        again.close()
    ours = np.stack(drawn)
    inside = np.clip(theirs, -1, 1) if name == "box" else theirs  # as the environment gets them
    spread = np.maximum(inside.std(axis=0), 1e-9)
    assert (np.abs(ours.mean(axis=0) - inside.mean(axis=0)) < 5 * spread * np.sqrt(2 / rows)).all()
    assert (np.abs(ours.std(axis=0) / spread - 1) < 0.05).all()


@pytest.mark.long
def test_a_real_client_draws_by_its_ids_and_one_without_ids_by_chance() -> None:
    def play(ids: Any) -> list[int]:
        with running_serving_loop(policy_of("discrete", "numpy"), action_space=CASES["discrete"][1]) as serve:
            client = serve.client()
            episodes = client.start_episodes(ids)
            actions = [client.get_action(episode, OBSERVATIONS[0, 0]) for episode in episodes[:30]]
            return [int(action) for action in [*actions, *client.get_actions(episodes[30:], np.repeat(OBSERVATIONS[0, :1], 30, axis=0))]]

    names = [f"trial-{number}" for number in range(60)]
    first = play(names)
    assert play(names) == first
    assert play(names[:30] + names[:29:-1])[:30] == first[:30]
    assert len(set(first)) > 1
    assert play(60) != play(60), "ids that the client makes up are new each time"


@pytest.mark.long
def test_an_external_env_draws_by_its_ids_in_whatever_order_they_come() -> None:
    names = [f"mine-{number}" for number in range(20)]

    def play(order: list[str]) -> dict[str, int]:
        with serving_env(policy=policy_of("discrete", "numpy")) as served:

            def one(name: str) -> int:
                served.env.start_episode(name)
                return int(served.env.get_action(name, OBSERVATIONS[0, 0]))

            results: list[tuple[str, Callable[[], int]]] = [(name, in_thread(one, name)) for name in order]
            return {name: result() for name, result in results}

    actions = play(names)
    assert play(names[::-1]) == actions
    assert len(set(actions.values())) > 1


@pytest.mark.long
def test_a_refused_row_that_is_sent_again_draws_the_same() -> None:
    expected = played("discrete", "numpy", EPISODES)
    harness = CoreHarness(policy_of("discrete", "numpy"), action_space=CASES["discrete"][1])
    for index in range(EPISODES):
        bad = OBSERVATIONS[index, 0].copy()
        bad[0] = np.nan
        assert harness.refusal(start(f"episode {index}", bad)).reason == "BAD_OBSERVATION"
        assert harness.one(start(f"episode {index}", OBSERVATIONS[index, 0])).action == expected[index, 0]
    harness.close()


@pytest.mark.long
def test_a_given_action_moves_no_later_draw() -> None:
    expected = played("discrete", "numpy", EPISODES)
    harness = CoreHarness(policy_of("discrete", "numpy"), action_space=CASES["discrete"][1])
    for index in range(EPISODES):
        first = harness.one(start(f"episode {index}", OBSERVATIONS[index, 0], flags=StepFlag.ACTION_GIVEN, action=2))
        assert harness.one(Row(first.handle, 1, observation=OBSERVATIONS[index, 1])).action == expected[index, 1]
    harness.close()
