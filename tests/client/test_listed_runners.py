"""Of runners with as many episodes of a client, one with less to do for others gets a part of the next, however many clients see it."""

from __future__ import annotations

import pytest

from policyserver.client.listed_runners import Preference


def preference(client: int = 0, **loads: int) -> Preference:
    made = Preference()
    made.begin(client)
    made.loads = loads
    return made


@pytest.mark.parametrize("loads", [{}, {"b": 0}, {"a": 3, "b": 2}, {"a": 0, "b": 9}, {"a": 5, "b": 5}])
def test_the_one_listed_first_gets_it_where_nothing_speaks_for_another(loads: dict[str, int]) -> None:
    chosen = preference(**loads)
    assert [chosen.choose(["a", "b"]) for _ in range(50)] == [0] * 50


def test_a_part_goes_to_the_one_with_the_least_and_half_at_most() -> None:
    chosen = preference(a=1_000_000, b=500_000, c=0)
    assert 0.48 < sum(chosen.choose(["a", "b", "c"]) == 2 for _ in range(1000)) / 1000 <= 0.5
    chosen = preference(a=20, b=10)
    assert 0.1 < sum(chosen.choose(["a", "b"]) for _ in range(1000)) / 1000 < 0.2


def simulated(episode_s: float, clients: int = 400, rounds: int = 60, late_s: float = 5.0) -> list[float]:
    """Play episodes of one length after another on two runners, of which one is new, and return its share of the open ones at each report.

    Half of the clients have the new one first in their lists, as a server arranges it.
    """
    preferences = [preference(number) for number in range(clients)]
    orders = [("old", "new") if number % 2 else ("new", "old") for number in range(clients)]
    place = ["old"] * clients
    ends = [episode_s * number / clients for number in range(clients)]
    shares = []
    for turn in range(rounds):
        loads = {name: place.count(name) for name in ("old", "new")}
        for each in preferences:
            each.loads = loads
        for number in range(clients):
            while ends[number] < (turn + 1) * late_s:
                ends[number] += episode_s
                place[number] = orders[number][preferences[number].choose(orders[number])]
        shares.append(place.count("new") / clients)
    return shares


@pytest.mark.parametrize("episode_s", [0.5, 5.0, 60.0])
def test_many_clients_with_one_episode_each_come_to_an_even_share_and_stay_there(episode_s: float) -> None:
    shares = simulated(episode_s)
    assert all(0.4 < share < 0.6 for share in shares[20:]), shares
