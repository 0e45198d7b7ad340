"""What an ExternalEnv needs of the thread that serves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from policyserver.common.errors import PolicyServerError
from policyserver.server.episodes.core import EpisodeCore

T = TypeVar("T")


class CoreLoop(Protocol):
    """The loop thread that owns the episode core. Any thread may call the methods."""

    core: EpisodeCore
    """Used on the loop thread."""
    at_stop: list[Callable[[PolicyServerError], None]]
    """Called on the loop thread when the server stops, with what calls are answered from then on."""

    def call(self, function: Callable[[], T]) -> T:
        """Call a function on the loop thread and return what it returns; here, once the loop has stopped."""

    def post(self, function: Callable[[], None]) -> None:
        """Call a function on the loop thread, unless that has ended."""

    def drain(self) -> None:
        """Refuse new episodes, and let the training hear at once what is recorded."""

    def bind(self, address: str) -> str:
        """Serve clients on an address, too, and return it with its port.

        Raises:
            OSError: The address can't be bound.
        """

    def wait_stopped(self) -> bool:
        """Block until the server has stopped."""
