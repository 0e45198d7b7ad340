"""Tells whether Ray has given a node up, for the link, which hears of that node's processes before Ray ends them."""

from __future__ import annotations

import logging
import queue
import threading

logger = logging.getLogger(__name__)

_LOOK_S = 2.0
"""How long Ray is waited for, which does not answer while its head is away: serving goes on then."""


class LostNodes:
    """Looks at Ray's list of nodes, once at a time. From any thread."""

    def __init__(self) -> None:
        """Begin."""
        self._looking = threading.Lock()

    def has(self, node_id: str) -> bool:
        """Tell whether Ray has given up the node with this id; False as well if Ray does not say so in time."""
        if not self._looking.acquire(timeout=_LOOK_S):
            return False
        answer: queue.SimpleQueue[bool] = queue.SimpleQueue()
        threading.Thread(target=self._look, args=(node_id, answer), name="lost-nodes", daemon=True).start()
        try:
            return answer.get(timeout=_LOOK_S)
        except queue.Empty:
            return False

    def _look(self, node_id: str, answer: queue.SimpleQueue[bool]) -> None:
        try:
            import ray

            answer.put(any(node["NodeID"] == node_id and not node["Alive"] for node in ray.nodes()))
        except Exception as error:  # whatever Ray raises without its head
            logger.debug("Ray's nodes can't be listed: %s", error)
            answer.put(False)
        finally:
            self._looking.release()
