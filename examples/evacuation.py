"""The pipelines' nodes without a market: people leave a building.

    python examples/evacuation.py

Corridors bring people to two doors. A door opens every few milliseconds for the first of its queue, and sends the end of a long queue back
to the corridors, towards the other door. Each node is a thread with a bounded inbox, and corridors share the people by their numbers.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from policyserver.pipelines.runtime.inbox import push_together
from policyserver.pipelines.runtime.node import Node
from policyserver.pipelines.runtime.node_group import NodeGroup

PEOPLE, DOORS, CORRIDORS = 600, 2, 3
LONGEST_QUEUE, AT_ONCE, OPENS_EVERY_S = 60, 8, 0.002


@dataclass(frozen=True, slots=True)
class Person:
    """A person on the way out: the event that goes from node to node."""

    number: int
    door: int
    steps_left: int
    turned_away: int = 0


class Corridor(Node[Person]):
    """Goes one step with each of its people: along the corridor, or to their doors."""

    def _process(self, batch: list[Person]) -> None:
        moved = [replace(person, steps_left=person.steps_left - 1) for person in batch]
        walking, arrived = [person for person in moved if person.steps_left], [person for person in moved if not person.steps_left]
        push_together([*corridors.shares(walking), *doors.shares(arrived)])


class Door(Node[Person]):
    """Lets people out, a few at a time."""

    queue: tuple[Person, ...] = ()

    def _process(self, batch: list[Person]) -> None:
        queue = (*self.queue, *batch)
        leaving, self.queue, late = queue[:AT_ONCE], queue[AT_ONCE:LONGEST_QUEUE], queue[LONGEST_QUEUE:]
        turned = [replace(person, door=(person.door + 1) % DOORS, steps_left=5, turned_away=person.turned_away + 1) for person in late]
        push_together([*outside.shares(leaving), *corridors.shares(turned)])


class Outside(Node[Person]):
    """Counts who is there; once all are, it is over."""

    def _process(self, batch: list[Person]) -> None:
        people_outside.extend(batch)
        if len(people_outside) == PEOPLE:
            is_over.set()


people_outside: list[Person] = []
is_over = threading.Event()
corridors = NodeGroup("corridor", [Corridor(f"corridor-{place}") for place in range(CORRIDORS)], lambda person: person.number)
doors = NodeGroup("door", [Door(f"door-{place}", interval_s=OPENS_EVERY_S) for place in range(DOORS)], lambda person: person.door)
outside = NodeGroup("outside", [Outside("outside")], lambda person: 0)

if __name__ == "__main__":
    groups = (corridors, doors, outside)
    for group in groups:
        group.start()
    corridors.push_many([Person(number, door=0, steps_left=10 + number % 30) for number in range(PEOPLE)])
    finished = is_over.wait(30)
    for group in groups:
        group.stop()
        counts = group.statistics()
        print(f"{counts.name:>8}: {counts.threads} threads, {counts.processed:6,} events, at most {counts.queue_max} waiting in an inbox")
    print(f"{len(people_outside)} of {PEOPLE} people are outside, {sum(person.door == 1 for person in people_outside)} by the other door")
    raise SystemExit(not finished)
