"""Replicas of one node that share its events."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Generic

from policyserver.pipelines.runtime.inbox import EventT, Share, push_together
from policyserver.pipelines.runtime.node import Node, NodeStatistics


class NodeGroup(Generic[EventT]):
    """Replicas of a node that share its events by a key: equal keys always meet the same replica, in order."""

    def __init__(self, name: str, replicas: Sequence[Node[EventT]], key: Callable[[EventT], int]) -> None:
        """Group `replicas` (at least one); an event goes to number `key(event) % len(replicas)`."""
        if not replicas:
            raise ValueError(f"replicas of node {name}: expected at least 1, received 0")
        self.name = name
        self.replicas = tuple(replicas)
        self._key = key

    def push_many(self, events: Sequence[EventT]) -> None:
        """Put each event into the inbox of its replica, all of them or none. Raises as `Node.push_many` does."""
        replicas = self.replicas
        if len(events) == 1:
            replica = replicas[self._key(events[0]) % len(replicas)] if len(replicas) > 1 else replicas[0]
            if replica.inbox.put_at_once(events):
                return
        push_together(self.shares(events))

    def shares(self, events: Sequence[EventT]) -> list[Share]:
        """Return each replica's inbox with the events that are for it, to be pushed together with others."""
        inboxes = [replica.inbox for replica in self.replicas]
        count = len(inboxes)
        if count == 1:
            return [(inboxes[0], events)]
        shares: list[list[EventT]] = [[] for _ in range(count)]
        key = self._key
        for event in events:
            shares[key(event) % count].append(event)
        return list(zip(inboxes, shares, strict=True))

    def start(self) -> None:
        """Start all replicas."""
        for replica in self.replicas:
            replica.start()

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Stop all replicas within one deadline. Returns whether all have stopped."""
        deadline = time.monotonic() + timeout_s
        for replica in self.replicas:
            replica.request_stop()
        stopped = [replica.join(max(0.0, deadline - time.monotonic())) for replica in self.replicas]
        return all(stopped)

    @property
    def waiting(self) -> int:
        """Events in the inboxes of all replicas now."""
        return sum(replica.waiting for replica in self.replicas)

    def statistics(self) -> NodeStatistics:
        """Return the counters of all replicas together (`queue_max`: of the fullest)."""
        parts = [replica.statistics() for replica in self.replicas]
        sums = {name: sum(getattr(part, name) for part in parts) for name in ("threads", "processed", "overflowed", "failures", "restarts")}
        return NodeStatistics(self.name, queue_max=max(part.queue_max for part in parts), **sums)
