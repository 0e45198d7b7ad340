"""docs/scaling.md is what its script makes of what was measured, and the calculation is right where it can be done by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scaling.growth import Load, ceilings, needs
from benchmarks.scaling.measured import FigureMissingError, Measured, read
from benchmarks.scaling.run import PAGE, current
from benchmarks.scaling.second_actor import Load as ActingLoad
from benchmarks.scaling.second_actor import Measurement

ROOT = Path(__file__).parents[3]
ROUND = Measured(
    serving_us=7.0, serving_lone_us=70.0, client_us=14.0, hand_off_us=1.0, learner_us=100.0, learner_gpu_us=50.0, episode_bytes=1000.0
)


def test_the_page_is_current() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == current()


def test_a_second_actor_brings_what_the_processor_time_of_an_action_says() -> None:
    one, two = (Measurement(actors, 1.0, 1.0, 1.0, us, 1.0, []) for actors, us in ((1, 6.0), (2, 8.0)))
    assert ActingLoad(4, 1000, one, two).times_one == pytest.approx(1.5)


def test_what_a_load_takes() -> None:
    found = needs(Load(episodes_open=150_000, actions_per_s=200_000), ROUND)
    assert (found.actors, found.episodes_bytes) == (2, 150e6)
    assert [found.client_cores, found.driver_busy, found.learner_busy] == pytest.approx([4.0, 0.2, 20.0])
    assert (found.first_limit, found.first_limit_of_acting) == ("the learner", "")
    assert needs(Load(500_000, 1), ROUND).actors == 5, "by open episodes"
    assert needs(Load(1, 1_000_000), ROUND).first_limit_of_acting == "the driver"
    assert needs(Load(0, 0), ROUND).first_limit == ""
    with pytest.raises(ValueError, match="expected numbers of 0 or more"):
        needs(Load(-1, 0), ROUND)


def test_the_learner_s_end_is_where_it_is_seven_tenths_busy() -> None:
    assert ceilings(ROUND)["one learner on a CPU, with every step"] == pytest.approx(7_000)


def test_a_page_without_a_figure_is_refused_by_its_name(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for gone in ("| hand_off_mlp ", "bytes_per_episode 7"):
        (tmp_path / "page.md").write_text(text.replace(gone, "| x " if gone.startswith("|") else "x 7"), encoding="utf-8")
        with pytest.raises(FigureMissingError, match=gone.strip("| ").split(" ")[0]):
            read(3.0, tmp_path / "page.md")
