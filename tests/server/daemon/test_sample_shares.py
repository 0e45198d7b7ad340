"""The effective sample size says how much of a batch counts for the policy that learns from it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from policyserver.server.daemon.sample_shares import SampleShares, effective_share
from tests.server.core_harness import CoreHarness, learner_batch, learner_of, module_of_learner, policy_of


@pytest.mark.parametrize(
    ("ratios", "share"), [([1.0, 1.0, 1.0, 1.0], 1.0), ([1.0, 0.0, 0.0, 0.0], 0.25), ([3.0, 1.0], 0.8), ([1e30, 1e30], 1.0)]
)
def test_it_is_the_square_of_the_sum_over_the_sum_of_the_squares(ratios: list[float], share: float) -> None:
    assert float(effective_share(torch.tensor(ratios).log())) == pytest.approx(share)


@pytest.mark.long
@pytest.mark.parametrize("model", ["mlp", "lstm_shared"])
def test_of_steps_that_the_policy_took_itself_all_count_and_of_others_fewer(model: str) -> None:
    harness = CoreHarness(policy_of(module_of_learner(model)))
    try:
        for name, steps in (("a", 25), ("b", 40)):
            harness.play(name, steps)
        learner = learner_of(model)
        batch: dict[str, Any] = learner_batch(learner, harness.segments())
    finally:
        harness.close()
    module = learner.module[DEFAULT_MODULE_ID]
    fwd_out = module.forward_train(batch)
    computed: list[str] = []
    inner = SimpleNamespace(module=learner.module, compute_loss_for_module=lambda **_: computed.append("loss"))
    shares = SampleShares(SimpleNamespace(_learner=inner))

    def compute() -> None:
        for _ in range(9):  # at least one is measured
            inner.compute_loss_for_module(module_id=DEFAULT_MODULE_ID, config=None, batch=batch, fwd_out=fwd_out)

    compute()
    assert shares.take() == pytest.approx(1.0, abs=1e-5)
    assert shares.take() is None
    batch[Columns.ACTION_LOGP] = batch[Columns.ACTION_LOGP] + torch.linspace(-2.0, 2.0, batch[Columns.ACTION_LOGP].shape[-1])
    compute()
    other = shares.take()
    assert other is not None
    assert 0.1 < other < 0.9
    del batch[Columns.ACTION_LOGP]
    compute()
    assert shares.take() is None, "where it is unknown how likely the actions were"
    assert len(computed) == 27
