"""Actions that clients take although the policy excludes them: refused, for a learner would fail over their log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from policyserver.common.flags import StepFlag
from policyserver.server.policies.policy import Policy
from tests.server.connector_harness import stock_policy
from tests.server.core_harness import ACTION, ACTIONS, OBSERVATION, CoreHarness, Row, observation, policy_of, ppo_config, spaces_of, start

EXCLUDED = 2
GIVEN, OVERRIDE = StepFlag.ACTION_GIVEN, StepFlag.OVERRIDE
POLICIES: dict[str, Callable[[Any], Policy]] = {"arrays": policy_of, "stock": stock_policy}


class Excluding(DefaultPPOTorchRLModule):  # type: ignore[misc]
    """A module that masks an action out."""

    def _forward(self, batch: dict[str, Any], **options: Any) -> Any:
        out = super()._forward(batch, **options)
        out[Columns.ACTION_DIST_INPUTS][..., EXCLUDED] = -math.inf
        return out


def module() -> Any:
    spec = RLModuleSpec(module_class=Excluding, model_config={"fcnet_hiddens": [8]})
    config = ppo_config().copy(copy_frozen=False).rl_module(rl_module_spec=spec)
    return config.get_rl_module_spec(spaces=spaces_of(OBSERVATION, ACTION), inference_only=True).build()


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("flags", [GIVEN, GIVEN | OVERRIDE], ids=["logged", "instead of the answer"])
def test_it_is_refused_and_the_step_stays_as_it_was(make_harness: Callable[..., CoreHarness], kind: str, flags: StepFlag) -> None:
    harness = make_harness(POLICIES[kind](module()))
    first = harness.one(start("a", observation(1)))
    sequence = 0 if flags & OVERRIDE else 1
    error = harness.refusal(Row(first.handle, sequence, flags, 0.0, observation(sequence + 1), EXCLUDED))
    assert error.reason == "BAD_ACTION"
    assert "received one it excludes" in str(error)
    assert harness.core.statistics.rows_failed == 0, "it is the client's mistake"
    harness.one(Row(first.handle, 1, StepFlag.TERMINATED, 1.0, observation(3)))
    (segment,) = harness.segments()
    assert segment.get_actions().tolist() == [first.action]
    assert segment.get_extra_model_outputs(Columns.ACTION_LOGP).tolist() == [pytest.approx(first.log_prob)]


class Undecided(DefaultPPOTorchRLModule):  # type: ignore[misc]
    """A module that gives its actions itself, and of some observations none that is a number."""

    def _forward(self, batch: dict[str, Any], **options: Any) -> Any:
        actions = super()._forward(batch, **options)[Columns.ACTION_DIST_INPUTS][..., :2]
        return {Columns.ACTIONS: actions * math.nan if float(batch[Columns.OBS].max()) > 50 else actions}


@pytest.mark.parametrize("kind", POLICIES)
def test_an_action_that_is_no_number_reaches_nobody(make_harness: Callable[..., CoreHarness], kind: str) -> None:
    spec = RLModuleSpec(module_class=Undecided, model_config={"fcnet_hiddens": [8]})
    config = ppo_config(action="box").copy(copy_frozen=False).rl_module(rl_module_spec=spec)
    built = config.get_rl_module_spec(spaces=spaces_of(OBSERVATION, ACTIONS["box"]), inference_only=True).build()
    harness = make_harness({"arrays": policy_of, "stock": stock_policy}[kind](built, action="box"), action="box")  # type: ignore[operator]
    assert harness.refusal(start("a", observation(60))).reason == "INTERNAL"
    handle = harness.one(start("a", observation(1))).handle
    assert harness.refusal(Row(handle, 1, observation=observation(60))).reason == "INTERNAL"
    harness.one(Row(handle, 1, StepFlag.TERMINATED, 1.0, observation(3)))
    (segment,) = harness.segments()
    assert len(segment) == 1
