"""Serving is asked how it goes from its first moment on."""

from __future__ import annotations

import contextlib
import threading

from policyserver.monitoring.sink import MultiSink
from policyserver.server.daemon.serving_watch import INTERVAL_S, ServingWatch
from policyserver.server.processes.serving_report import ServingReport


def test_the_first_report_is_asked_for_at_once() -> None:
    asked = threading.Event()

    def ask(*_: object) -> list[ServingReport]:
        asked.set()
        return []

    with contextlib.closing(ServingWatch(ask, MultiSink(), {})):
        assert asked.wait(INTERVAL_S / 2), "a server that serves is ready to whatever asks /readyz"
