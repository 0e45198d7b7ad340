"""Running statistics: a scheme reads those that it declares; another one is refused by its name."""

from __future__ import annotations

import pytest

from policyserver.pipelines.market.running_statistics import ExponentialMean, MeanSinceStart, Statistics


def test_a_statistic_that_no_scheme_declares_is_refused_with_what_to_do() -> None:
    statistics = Statistics(2, 1, frozenset({ExponentialMean(8)}))
    assert statistics[ExponentialMean(8)].shape == (2, 1)
    with pytest.raises(
        KeyError, match=r"expected one that the scheme that reads it declares in its `statistics`.*ExponentialMean.*MeanSinceStart"
    ):
        statistics[MeanSinceStart()]
