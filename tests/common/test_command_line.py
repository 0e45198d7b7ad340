"""What our three commands say of their version and of options that they don't know."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.commands import run_here

VERSION = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


@pytest.mark.process
@pytest.mark.parametrize("command", ["policy-server", "policy-pipeline", "policy-monitor"])
def test_every_command_knows_its_version(command: str) -> None:
    program = str(Path(sys.executable).with_name(command))
    ended = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=200, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{command} {VERSION}\n", "")


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("policy-server serve --learner.nicenes 3", "--learner.niceness"),
        ("policy-server check-config --hand_off.segment_step=32", "--hand_off.segment_steps"),
        ("policy-pipeline run --fee_fraction 0.1", "--rules.instrument.fee_fraction"),
        ("policy-pipeline run --episodes.concurent 3", "--episodes.concurrent"),
        ("policy-pipeline demo --episode 3", "--episodes"),
        ("policy-pipeline demo --prices=csv:x --jsn y", "--json"),
        ("policy-monitor serve --store x --adress 127.0.0.1:1", "--address"),
        ("policy-monitor export --store x --measurment step", "--measurement"),
    ],
)
def test_a_mistyped_option_is_answered_with_the_one_that_was_probably_meant(command: str, meant: str) -> None:
    ended = run_here(*command.split())
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"did you mean {meant}" in ended.stderr
    assert ended.stderr.count("\n") == 1, "one line"


def test_an_option_like_no_other_and_a_word_too_many_are_refused_by_name() -> None:
    assert run_here("policy-pipeline", "demo", "--xyzzy").stderr.startswith("policy-pipeline demo: unknown option --xyzzy; see")
    assert run_here("policy-pipeline", "demo", "fast").stderr.startswith("policy-pipeline demo: unexpected argument 'fast'")
