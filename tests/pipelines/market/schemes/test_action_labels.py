"""An action is shown in its scheme's own words, whatever its space is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.market.schemes.actions import ACTIONS
from policyserver.pipelines.market.schemes.actions.action_scheme import MOST_LABEL_LETTERS


@pytest.mark.parametrize(
    ("scheme", "action", "label"),
    [
        ("sell_hold_buy", np.int64(0), "sell"),
        ("sell_hold_buy", np.int64(2), "buy"),
        ("hold_buy_sell_close", np.int64(0), "hold"),
        ("hold_buy_sell_close", np.array([1, 3]), "buy close"),
        ("target_position", np.int64(1), "-0.5"),
        ("target_position", np.int64(2), "+0"),
        ({"name": "target_position", "steps": 3}, np.int64(5), "+0.667"),
        ("target_weight", np.array([0.25, -1.0], dtype=np.float32), "+12% -50%"),
        ({"name": "target_weight", "largest": 2.0}, np.array([0.25], dtype=np.float32), "+50%"),
        ("simplex_weights", np.array([0.0, 0.0, -1.0], dtype=np.float32), "cash 50% 50% 1%"),
        ("limit_offsets", np.array([1.0, -0.3, 0.0], dtype=np.float32), "+100% limit -0.6 stop 1.0"),
        ("limit_offsets", np.int64(2), "2"),
        ("simplex_weights", np.int64(2), "2"),
        ("target_weight", np.int64(2), "2"),
        ("limit_offsets", np.array([-0.5, 0.25, -1.0], dtype=np.float32), "-50% limit +0.5 stop none"),
    ],
)
def test_an_action_has_its_label(scheme: Any, action: Any, label: str) -> None:
    assert ACTIONS.make(scheme, "actions").label(action) == label


@pytest.mark.parametrize("scheme", ACTIONS.shipped)
def test_every_action_of_every_shipped_scheme_has_one(scheme: str) -> None:
    part = ACTIONS.make(scheme, "actions")
    space = part.space(("AAA",))
    space.seed(1)
    for _ in range(20):
        assert part.label(space.sample())


def test_labels_are_those_of_each_action_and_bounded() -> None:
    part = ACTIONS.make("target_weight", "actions")
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (30, 3)).round(1).astype(np.float32)
    assert part.labels(actions) == [part.label(action) for action in actions]
    assert ACTIONS.make("target_position", "actions").labels(np.array([1, 2, 1])) == ["-0.5", "+0", "-0.5"]
    (label,) = part.labels(np.ones((1, 500), dtype=np.float32))
    assert len(label) == MOST_LABEL_LETTERS
    assert label.startswith("+0% +0%")
    assert label.endswith("…")
