"""The terminal view in a real shell: Ctrl-Z, fg, bg and Ctrl-C leave a terminal that can be used."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.shell_session import CTRL_C, CTRL_Z, FIRST_SCREEN, HIDDEN_CURSOR, OTHER_SCREEN, PROMPT, SHOWN_CURSOR, ShellSession

pytestmark = pytest.mark.process

PROGRAM = f"{sys.executable} -m tests.pipelines.terminal_program"


@pytest.fixture
def shell() -> Iterator[ShellSession]:
    session = ShellSession(Path(__file__).parents[3])
    yield session
    session.close()


def assert_given_back(text: str) -> None:
    """The newest word on the screen and on the cursor is the shell's."""
    assert text.rfind(FIRST_SCREEN) > text.rfind(OTHER_SCREEN)
    assert text.rfind(SHOWN_CURSOR) > text.rfind(HIDDEN_CURSOR)


def test_ctrl_z_gives_the_terminal_back_fg_takes_it_again_and_bg_leaves_it_to_the_shell(shell: ShellSession) -> None:
    shell.type(f"{PROGRAM}\n")
    shell.wait_for("64 at a time")
    for _ in range(2):
        at = shell.type(CTRL_Z)
        assert_given_back(shell.wait_for(rf"Stopped[\s\S]*{PROMPT}", at))
        at = shell.type("fg\n")
        shell.wait_for(r"\x1b\[\?1049h\x1b\[\?25l[\s\S]*64 at a time", at)
    at = shell.type(CTRL_Z)
    shell.wait_for(rf"Stopped[\s\S]*{PROMPT}", at)
    at = shell.type("bg\n")
    shell.wait_for(PROMPT, at)
    time.sleep(1.0)  # two drawings
    assert "64 at a time" not in shell.text[at:]
    at = shell.type("fg\n")
    shell.wait_for("64 at a time", at)
    at = shell.type(CTRL_C)
    assert_given_back(shell.wait_for(PROMPT, at))
    at = shell.type("echo status=$?\n")
    shell.wait_for("status=0", at)


def test_a_terminal_without_a_cursor_gets_plain_lines(shell: ShellSession) -> None:
    at = shell.type(f"TERM=dumb {PROGRAM}\n")
    shell.wait_for("30,000 steps", at)
    at = shell.type(CTRL_C)
    shell.wait_for(PROMPT, at)
    assert "\x1b[?1049h" not in shell.text
