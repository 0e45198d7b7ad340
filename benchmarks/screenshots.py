"""Takes the pictures of the documents from a real run of the demo: docs/page*.png, docs/terminal.txt and docs/summary.txt.

    python -m benchmarks.screenshots [--steps N]

Run it from the repository's root; it needs chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from pathlib import Path
from typing import NoReturn

from benchmarks.folders import DOCS, ROOT
from policyserver.pipelines.demo.setup import DEFAULT_STEPS
from tests.browser import Browser
from tests.services import wait_until

_COLUMNS, _LINES = 132, 30
_SHARE_SHOWN = 0.9
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_HOME, _FIRST_SCREEN = "\x1b[H", "\x1b[?1049l"
_ZOOM = "document.body.style.zoom = 0.8; window.dispatchEvent(new Event('resize'))"
_SOME_ROWS = "return document.querySelectorAll('#decisions tr').length >= 12 && document.querySelectorAll('#returns canvas').length > 0"
_ALL_VISIBLE_DRAWN = """
    const shown = [...document.querySelectorAll(".chart:not(.empty)")].filter((chart) => chart.getBoundingClientRect().top < innerHeight);
    return shown.length > 0 && shown.every((chart) => chart.querySelector("canvas"));
"""
_PICTURES = (
    ("page.png", "light", "filters"),
    ("page-dark.png", "dark", "filters"),
    ("page-learner.png", "light", "loss"),
    ("page-learner-dark.png", "dark", "loss"),
)
"""Picture, colours, and the element that is its upper edge."""


class TerminalDemo:
    """`policy-pipeline demo` on a terminal of its own, whose screen can be read."""

    def __init__(self, *arguments: str) -> None:
        """Start it."""
        master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, _COLUMNS, 0, 0))
        command = [str(Path(sys.executable).with_name("policy-pipeline")), "demo", *arguments]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, env=os.environ | {"TERM": "xterm"}, start_new_session=True
        )
        os.close(slave)
        self._master = master
        self._text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def frame(self) -> str:
        """Return the newest screen that was drawn whole."""
        text = self._text
        end = text.rfind(_HOME)
        begin = text.rfind(_HOME, 0, max(end, 0))
        return _plain(text[begin + len(_HOME) : end]) if begin >= 0 else ""

    def output(self) -> str:
        """Return what was written outside of the view."""
        before, _, rest = self._text.partition("\x1b[?1049h")
        return _plain(before + rest.partition(_FIRST_SCREEN)[2])

    def wait(self) -> int:
        """Wait for its end and return its status."""
        status = self.process.wait()
        self._reader.join()
        return status

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the terminal closes with its process
            while data := os.read(self._master, 65536):
                self._text += data.decode(errors="replace")


def main() -> None:
    """Run the demo; take its screen and its page near the end, and its summary."""
    parser = argparse.ArgumentParser(description="Take the README's pictures from a run of the demo.")
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS, help="steps of the run (default: the demo's)")
    steps = parser.parse_args().steps
    demo = TerminalDemo("--steps", str(steps))
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.closing(Browser(Path(folder), _missing)) as browser:
            address: str = wait_until(lambda: _page(demo), "the page's address", 120.0)
            browser.open(address)
            browser.script(_ZOOM)
            wait_until(lambda: _steps(demo.frame()) >= _SHARE_SHOWN * steps or demo.process.poll() is not None, "most steps", 1200.0)
            wait_until(lambda: browser.script(_SOME_ROWS), "the page to be drawn")
            (DOCS / "terminal.txt").write_text(demo.frame(), encoding="utf-8")
            _take_pictures(browser)
        if demo.wait() != 0:
            raise RuntimeError(f"the demo failed:\n{demo.output()}")
        (DOCS / "summary.txt").write_text(demo.output(), encoding="utf-8")
    finally:
        if demo.process.poll() is None:
            demo.process.terminate()
            demo.wait()


def _take_pictures(browser: Browser) -> None:
    """Save the page from some places on, in light and dark."""
    for name, colours, top in _PICTURES:
        browser.script(f"theme.choose('{colours}'); document.getElementById('{top}').closest('section, header').scrollIntoView()")
        wait_until(lambda: browser.script(_ALL_VISIBLE_DRAWN), "the charts to be drawn")
        browser.screenshot(DOCS / name)


def _page(demo: TerminalDemo) -> str | None:
    """Return the page's address once the demo shows it.

    Raises:
        RuntimeError: the demo has ended instead.
    """
    if demo.process.poll() is not None:
        raise RuntimeError(f"the demo ended before it showed its page:\n{demo.output()}")
    found = re.search(r"http://127\.0\.0\.1:\d+", demo.frame())
    return found.group() if found else None


def _steps(frame: str) -> int:
    found = re.search(r"^steps +([\d,]+)", frame, re.MULTILINE)
    return int(found.group(1).replace(",", "")) if found else 0


def _plain(text: str) -> str:
    """Take escape codes and the place of this checkout out of a text."""
    lines = _ESCAPES.sub("", text).replace(f"{ROOT}/", "").splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


def _missing(reason: str) -> NoReturn:
    raise SystemExit(reason)


if __name__ == "__main__":
    main()
