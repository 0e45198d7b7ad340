"""Each shipped market of the demo, and a file of bars, are played against a real policy server, which learns from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policyserver.pipelines.demo.setup import DEFAULT_MARKET, MARKETS
from tests.integration.test_demo import START_S, assert_books_agree, finish, running_demo
from tests.pipelines.recorded_prices import index_series

pytestmark = [pytest.mark.timeout(900), pytest.mark.alone, pytest.mark.slow]

PLAYED = {
    **{name: ("--market", name) for name in MARKETS if name != DEFAULT_MARKET},
    "recorded": ("--prices", str(index_series("sp500"))),
}
"""Name of the prices in the summary, or of the market, and the options."""


@pytest.mark.parametrize("name", PLAYED)
def test_a_market_is_played_and_learnt_from(name: str, tmp_path: Path) -> None:
    written = tmp_path / "summary.json"
    sizes = ("--episodes", "16", "--steps", "9000", "--json", str(written), "--runs", str(tmp_path / "runs"))
    with running_demo(*PLAYED[name], *sizes) as demo:
        finish(demo, START_S + 60.0)
    summary = json.loads(written.read_text())
    assert_books_agree(summary)
    assert summary["steps"] >= 9_000
    assert summary["learner_updates"] >= 1
    assert summary["fallback_actions"] <= 16
    assert summary["random_mean"] is not None
    assert all(node["failures"] == 0 for node in summary["nodes"])
    assert summary["process"] == {"heston-mixture": "mixture", "portfolio": "ou", "limit-orders": "ou"}.get(name, name)
    assert summary["in_sample"] == (name == "recorded")
