"""What the connections of one client have in common."""

from __future__ import annotations

import threading

from policyserver.client.processor_core import ProcessorCore
from policyserver.client.wake_up_queue import WakeUpQueue

__all__ = ["Shared"]


class Shared:
    """The client's lock, and what is counted over all its connections."""

    def __init__(self, core: ProcessorCore) -> None:
        self.core = core
        """Where the threads run that wait for answers, and those that send and receive."""
        self.lock = threading.Lock()
        """Guards this, the episodes, the balancer and all connections: so one call may have rows on several."""
        self.changed = threading.Condition(self.lock)
        """Told to all who wait for a connection or pause: one was opened, refused or closed."""
        self.wake_up_queue = WakeUpQueue()
        """Those who were answered, in the order in which they go on."""
        self.is_abandoned = False
        """Nobody has the client any more: whoever reads this next ends its part. Set without the lock, and never unset."""
        self.weights_seq_no = 0
        """Policy version of the newest answer."""
        self.client_number: int | None = None
        """What the first handshake brought; no other client of the server has it."""
        self.messages_sent = 0
        self.rows_sent = 0
        self.rows_answered = 0
        self.connections = 0
