"""Numbers of every kind are rewards, anything else is refused by name and place, and a sum stays within what float32 holds."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from policyserver.common.errors import InvalidInputError
from policyserver.common.rewards import REWARD_MAX, add_reward, to_reward, to_rewards


@pytest.mark.parametrize(
    "value", [1.5, np.float32(1.5), np.float64(1.5), np.array(1.5), np.array([[1.5]]), Decimal("1.5"), Fraction(3, 2)], ids=repr
)
def test_numbers_of_every_kind_are_rewards(value: Any) -> None:
    assert to_reward(value) == 1.5
    assert type(to_reward(value)) is float


@pytest.mark.parametrize("value", [True, 1, np.int8(1), np.uint64(1), np.bool_(1)], ids=repr)
def test_integers_and_bools_are_rewards(value: Any) -> None:
    assert to_reward(value) == 1.0


@pytest.mark.parametrize(
    "value",
    ["1", b"1", bytearray(b"1"), memoryview(b"1"), np.str_("1"), np.array("1"), np.array(["1"], object), None, 1j, [1.0], np.zeros(2),
     10**400, float("nan"), float("-inf"), np.float32("inf"), object()],
    ids=lambda value: f"{value!r:.40}".split(" at 0x")[0],  # the same in each process that collects them
)  # fmt: skip
def test_anything_else_is_refused_and_said(value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^reward: expected a .*received") as caught:
        to_reward(value)
    assert (caught.value.reason, caught.value.field) == ("BAD_REWARD", "reward")


def test_bad_ones_among_many_are_told_by_their_place() -> None:
    rewards, errors = to_rewards([1, "1", 2.5, float("nan")])
    assert rewards == [1.0, 0.0, 2.5, 0.0]
    assert sorted(errors) == [1, 3]
    assert to_rewards(np.arange(3, dtype=np.float32)) == ([0.0, 1.0, 2.0], {})


def test_a_sum_is_judged_by_what_float32_holds() -> None:
    assert np.isfinite(np.float32(add_reward(0.0, REWARD_MAX)))
    assert add_reward(REWARD_MAX, -REWARD_MAX) == 0.0
    for logged, reward, unanswered in ((0.0, 1e39, 0.0), (3e38, 1e38, 0.0), (-3e38, -1e38, 0.0), (0.0, 1e38, 3e38), (1e308, 1e308, 0.0)):
        with pytest.raises(InvalidInputError, match="reward: expected a sum of at most"):
            add_reward(logged, reward, unanswered)
