"""Selectors of nodes by labels are understood as Ray understands them, and what Ray would refuse is refused at once."""

from __future__ import annotations

from typing import Any

import pytest

from policyserver.common.settings import SettingsError, load
from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.node_labels import check_selector, fits
from policyserver.server.config.server_config import ServerConfig

SELECTORS: list[tuple[dict[str, Any], bool]] = [
    ({"zone": "a"}, True),
    ({"example.com/zone-1": "a.b_c-d"}, True),
    ({"zone": "!a", "disk": "in(ssd, nvme,hdd)"}, True),
    ({"zone": "!in(a)"}, True),
    ({"zone": ""}, False),
    ({"zone": "-a"}, False),
    ({"zone": "in()"}, False),
    ({"zone": "in(a,)"}, False),
    ({"zone": "!!a"}, False),
    ({"zone": "a" * 64}, False),
    ({"zone": f"in({', '.join(['a' * 60] * 20)})"}, False),
    ({"zone": 1}, False),
    ({"-zone": "a"}, False),
    ({"z" * 64: "a"}, False),
    ({f"{'.'.join(['d' * 60] * 5)}/zone": "a"}, False),
    ({f"zone{number}": "a" for number in range(33)}, False),
]


@pytest.mark.parametrize(("selector", "is_one"), SELECTORS)
def test_what_is_no_selector_is_refused(selector: dict[str, Any], is_one: bool) -> None:
    if is_one:
        check_selector("serving_labels", selector)
        return
    with pytest.raises(ValueError, match=r"serving_labels.*: expected .* received"):
        check_selector("serving_labels", selector)


@pytest.mark.parametrize(
    ("labels", "selector", "is_for"),
    [
        ({"zone": "a"}, {}, True),
        ({"zone": "a"}, {"zone": "a"}, True),
        ({"zone": "b"}, {"zone": "a"}, False),
        ({}, {"zone": "a"}, False),
        ({"zone": "b"}, {"zone": "!a"}, True),
        ({"zone": "a"}, {"zone": "!a"}, False),
        ({}, {"zone": "!a"}, True),
        ({"zone": "b"}, {"zone": "in(a, b)"}, True),
        ({"zone": "c"}, {"zone": "in(a, b)"}, False),
        ({"zone": "b"}, {"zone": "!in(a,b)"}, False),
        ({}, {"zone": "!in(a,b)"}, True),
        ({"zone": "a"}, {"zone": "a", "disk": "ssd"}, False),
        ({"zone": "a", "disk": "ssd"}, {"zone": "a", "disk": "ssd"}, True),
    ],
)
def test_a_node_is_chosen_by_all_labels(labels: dict[str, str], selector: dict[str, str], is_for: bool) -> None:
    assert fits(labels, selector) is is_for


def test_learners_in_the_daemon_have_no_node_to_choose() -> None:
    config = load(ServerConfig, None, {"ray.address": "auto", "listen.address": "node:9900", "ray.learner_labels": {"zone": "a"}})
    with pytest.raises(SettingsError, match=r"ray\.learner_labels.*num_learners of at least 1"):
        algorithm_config(config, object)


@pytest.mark.long  # Ray is imported
def test_ray_takes_what_is_not_refused() -> None:
    from ray._private.label_utils import validate_label_selector

    assert [validate_label_selector(selector) for selector, is_one in SELECTORS if is_one] == [None] * 4
