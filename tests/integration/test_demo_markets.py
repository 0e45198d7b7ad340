"""Each shipped market of the demo, and a file of bars, are played against a real policy server, which learns from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policyserver.pipelines.demo.setup import DEFAULT_MARKET, MARKETS
from tests.integration.test_demo import START_S, assert_books_agree, finish, running_demo
from tests.pipelines.recorded_prices import index_series

pytestmark = [pytest.mark.timeout(2000), pytest.mark.alone, pytest.mark.slow]

PLAYED = {
    **{name: ("--market", name) for name in MARKETS if name != DEFAULT_MARKET},
    "recorded": ("--prices", str(index_series("sp500"))),
}
"""Name of the prices in the summary, or of the market, and the options."""


MOST_FALLBACKS = 16
"""One for each episode: an answer takes longer than two seconds only where the machine stands still."""
TURNS = 3
"""So often a market is played at most, for a machine stands still now and then."""


def played(name: str, folder: Path) -> dict[str, Any]:
    """Play a market to its end, and return its summary."""
    folder.mkdir()
    written = folder / "summary.json"
    sizes = ("--episodes", "16", "--steps", "9000", "--json", str(written), "--runs", str(folder / "runs"))
    with running_demo(*PLAYED[name], *sizes) as demo:
        finish(demo, 2 * START_S)
    return dict(json.loads(written.read_text()))


@pytest.mark.parametrize("name", PLAYED)
def test_a_market_is_played_and_learnt_from(name: str, tmp_path: Path) -> None:
    for turn in range(TURNS):
        summary = played(name, tmp_path / str(turn))
        if summary["fallback_actions"] <= MOST_FALLBACKS:
            break
    assert_books_agree(summary)
    assert summary["steps"] >= 9_000
    assert summary["learner_updates"] >= 1
    assert summary["fallback_actions"] <= MOST_FALLBACKS
    assert summary["random_mean"] is not None
    assert all(node["failures"] == 0 for node in summary["nodes"])
    assert summary["process"] == {"heston-mixture": "mixture", "portfolio": "ou", "limit-orders": "ou"}.get(name, name)
    assert summary["in_sample"] == (name == "recorded")
