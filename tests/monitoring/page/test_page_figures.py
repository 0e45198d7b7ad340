"""The live page's figures, those in docs/guides/monitoring.md; `python -m tests.monitoring.page.test_page_figures` prints them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.monitoring.page_figures import measure_following, measure_opening
from tests.services import MissingService


@pytest.mark.figures
def test_the_page_opens_in_less_than_a_second_over_a_million_points(tmp_path: Path, missing_service: MissingService) -> None:
    opening = measure_opening(tmp_path, missing_service)
    sys.stdout.write(str(opening))
    assert opening.points >= 1_000_000
    assert opening.first_paint_s < 1.0, opening
    assert opening.server_cpu_s < 1.0, opening


@pytest.mark.figures
def test_64_live_episodes_at_four_updates_a_second_take_less_than_a_tenth_of_a_core(
    tmp_path: Path, missing_service: MissingService
) -> None:
    following = measure_following(tmp_path, missing_service)
    sys.stdout.write(str(following))
    assert following.updates_per_s > 3.5, following
    assert following.server_share < 0.1, following
