"""Concurrent episodes are shared among few blocks: two as soon as one can work while the other waits, more where each is large."""

from __future__ import annotations

import pytest

from policyserver.pipelines.played_block import shares_of


@pytest.mark.parametrize(
    ("concurrent", "shares"),
    [
        (1, [1]),
        (63, [63]),
        (64, [64]),
        (127, [127]),
        (128, [64, 64]),
        (193, [96, 97]),
        (256, [128, 128]),
        (384, [128, 128, 128]),
        (512, [128, 128, 128, 128]),
        (1024, [256, 256, 256, 256]),
    ],
)
def test_episodes_are_shared_among_few_blocks_of_nearly_one_size(concurrent: int, shares: list[int]) -> None:
    assert shares_of(concurrent) == shares
