"""What a serving actor is told of further policies has happened there when the daemon goes on."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from policyserver.server.daemon.loaded_policies import LinkedActors
from policyserver.server.processes.driver_link import DriverLink, follow_driver
from policyserver.server.processes.link import DROP_POLICY, HOLD_POLICY


def test_a_policy_is_dropped_by_every_actor_before_the_call_returns(tmp_path: Path) -> None:
    link = DriverLink(tmp_path / "link")
    held: set[tuple[int, str]] = set()

    def hold(actor: int, order: tuple[str, Any]) -> str:
        held.add((actor, order[0]))
        return ""

    def drop(actor: int, name: str) -> bool:
        time.sleep(0.1)  # it has something else to do first
        held.remove((actor, name))
        return True

    stops = [
        follow_driver(
            link.path,
            lambda _: None,
            lambda: None,
            lambda _: None,
            lambda _: {},
            questions={HOLD_POLICY: partial(hold, actor), DROP_POLICY: partial(drop, actor)},
        )
        for actor in (1, 2)
    ]
    actors = LinkedActors(link)
    try:
        while not {(1, "first"), (2, "first")} <= held:  # both are connected then
            assert actors.hold("first", {}, {"first": {}}) == []
        actors.drop("first", {})
        assert held == set()
    finally:
        for stop in stops:
            stop()
        link.close()
