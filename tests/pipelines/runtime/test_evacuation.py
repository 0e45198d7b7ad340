"""The nodes serve for other things than markets: the example with people who leave a building runs to its end."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.documents import ROOT

NODE = r"^ *(\w+): (\d) threads, +([\d,]+) events"


@pytest.mark.process
def test_all_people_leave_the_building_by_both_doors() -> None:
    command = [sys.executable, str(ROOT / "examples" / "evacuation.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    counts = {name: (int(threads), int(events.replace(",", ""))) for name, threads, events in re.findall(NODE, done.stdout, re.MULTILINE)}
    (left,) = re.findall(r"^(\d+) of 600 people are outside, (\d+) by the other door$", done.stdout, re.MULTILINE)
    people, by_the_other_door = int(left[0]), int(left[1])
    assert people == 600
    assert counts["outside"] == (1, people)
    assert counts["door"][1] > people, "some were sent on to the other door"
    assert (counts["door"][0], counts["corridor"][0]) == (2, 3)
    assert 0 < by_the_other_door < people
