"""Actions that clients take although the policy excludes them: refused, for a learner would fail over their log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from policyserver.flags import StepFlag
from server.policy import Policy
from tests.server.core_harness import ACTION, OBSERVATION, CoreHarness, Row, observation, policy_of, ppo_config, spaces_of, start
from tests.server.stock_harness import stock_policy

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
    assert "no finite log-probability" in str(error)
    harness.one(Row(first.handle, 1, StepFlag.TERMINATED, 1.0, observation(3)))
    (segment,) = harness.segments()
    assert segment.get_actions().tolist() == [first.action]
    assert segment.get_extra_model_outputs(Columns.ACTION_LOGP).tolist() == [pytest.approx(first.log_prob)]
