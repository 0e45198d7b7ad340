"""What actors report of their open episodes reaches all of them, once a second and only if it is new."""

from __future__ import annotations

from typing import Any, cast

from policyserver.server.daemon.actor_loads import ActorLoads
from policyserver.server.processes.link import ENDPOINTS
from policyserver.server.processes.serving_report import ServingReport


class Link:
    def __init__(self) -> None:
        self.orders: list[tuple[str, Any]] = []

    def order(self, kind: str, content: Any) -> None:
        self.orders.append((kind, content))


def report(address: str, episodes: int) -> ServingReport:
    return ServingReport({"episodes_open": episodes}, addresses=(address,))


def test_loads_are_told_when_they_change_and_of_one_actor_never() -> None:
    link = Link()
    loads = ActorLoads(cast(Any, link))
    for rounds in ([("a", 3)], [("a", 3), ("b", 0)], [("b", 0), ("a", 3)], [("a", 3), ("b", 2)], [("a", 4)], []):
        for address, episodes in rounds:
            loads.note(report(address, episodes))
        loads.look()
    assert link.orders == [(ENDPOINTS, {"a": 3, "b": 0}), (ENDPOINTS, {"a": 3, "b": 2})]
