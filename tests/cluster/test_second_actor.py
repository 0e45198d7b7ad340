"""A second serving actor, on a node of its own, brings nearly as much as the first, by the processor time that an action takes of them."""

from __future__ import annotations

import pytest

from benchmarks.cluster.bed import bed
from benchmarks.cluster.second_actor import LOADS, SETTINGS, measure
from benchmarks.scaling.second_actor import BAR

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(1200)]


def test_it_brings_nine_tenths_of_the_first(made_of_namespaces: None) -> None:
    with bed(serving_hosts=2, actors=2, settings=SETTINGS) as made:
        load = measure(made, *LOADS[0])
    assert load.times_one >= BAR, load
