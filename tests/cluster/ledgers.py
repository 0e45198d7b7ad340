"""Players with a ledger of their own, which a test compares with what a server says that it recorded."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

from tests.cluster.hosts import Host, HostProcess

_PLAYER = Path(__file__).with_name("ledger_player.py")
_COUNTS = ("completed", "in_doubt", "stale", "started", "ended", "version")


class LedgerPlayer:
    """Episodes that are played on a host, with a ledger."""

    def __init__(self, host: Host, address: str, count: int, steps_s: float, *, spread: bool = True, timeout_s: float = 5.0) -> None:
        """Begin; the count names the player, too. A call waits so long for its answer."""
        self._output = host.path(f"/tmp/ledger-{count}")
        arguments = [address, str(count), f"/tmp/ledger-{count}", str(steps_s), str(timeout_s), *([] if spread else ["alone"])]
        self._process: HostProcess = host.start(sys.executable, str(_PLAYER), *arguments)

    def newest(self) -> dict[str, Any]:
        """Return what it wrote last; zeros at first."""
        assert self._process.poll() is None
        return self._last() or dict.fromkeys(_COUNTS, 0) | {"stale_now": [], "stats": {}}

    def end(self) -> dict[str, Any]:
        """Have it end its episodes, and return its last line."""
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(60.0) == 0
        last = self._last()
        assert last is not None
        assert last["over"]
        return last

    def _last(self) -> dict[str, Any] | None:
        lines = self._output.read_text().splitlines() if self._output.exists() else []
        while lines:
            try:
                return dict(json.loads(lines.pop()))
            except ValueError:  # it is being written
                continue
        return None


def of(player: LedgerPlayer, address: str, name: str) -> int:
    """Return a counter of an actor, as a player knows it; 0 where it does not."""
    return int(player.newest()["stats"].get(address, {}).get(name, 0))
