"""Concurrent episodes are shared among few blocks: several only where each is large."""

from __future__ import annotations

import pytest

from policyserver.pipelines.played_block import shares_of


@pytest.mark.parametrize(
    ("concurrent", "shares"),
    [
        (1, [1]),
        (64, [64]),
        (2047, [2047]),
        (2048, [1024, 1024]),
        (3073, [1024, 1024, 1025]),
        (4096, [1024, 1024, 1024, 1024]),
        (8192, [2048, 2048, 2048, 2048]),
    ],
)
def test_episodes_are_shared_among_few_blocks_of_nearly_one_size(concurrent: int, shares: list[int]) -> None:
    assert shares_of(concurrent) == shares
