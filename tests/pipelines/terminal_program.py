"""Shows the terminal view of one snapshot until Ctrl-C. Run: python -m tests.pipelines.terminal_program."""

from __future__ import annotations

import sys

from policyserver.pipelines.demo.terminal import TerminalView
from policyserver.pipelines.runtime.stop_signals import StopSignals
from tests.pipelines.demo.test_terminal import Taker


def main() -> None:
    """Show it."""
    view = TerminalView(Taker(), sys.stdout, lambda: "headline")
    with StopSignals().installed() as stop, view.suspendable():
        view.start()
        stop.wait()
        view.stop()


if __name__ == "__main__":
    main()
