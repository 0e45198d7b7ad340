"""A Ray of the tests' own process, which test files share, for it takes seconds to start and to stop."""

from __future__ import annotations

from policyserver.server.daemon.ray_start import RayProcess

TICKETS = 8
"""Logical CPUs, more than the actors of any test need."""


class SharedRay:
    """Runs from the first test that wants it to the last one of those that follow each other."""

    def __init__(self) -> None:
        self._process: RayProcess | None = None

    def start(self) -> None:
        """Start it unless it runs."""
        if self._process is None:
            process = RayProcess()
            process.start(num_cpus=TICKETS)
            self._process = process

    def stop(self) -> None:
        """Stop it if it runs: what another test starts is its own, and RLlib does not do the same where Ray runs."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()
