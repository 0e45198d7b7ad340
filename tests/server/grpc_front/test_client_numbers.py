"""Each client has a number of its own, counted in steps; one that it brings stays its own and is given to no other."""

from __future__ import annotations

import pytest

from policyserver.server.grpc_front.client_numbers import ClientNumbers, numbers_of
from tests.server.serving_loop_harness import running_serving_loop


def test_clients_are_counted_from_the_first_number_in_steps() -> None:
    alone, second_of_three = ClientNumbers(0, 1), ClientNumbers(1, 3)
    assert [alone.number(None) for _ in range(3)] == [0, 1, 2]
    assert [second_of_three.number(None) for _ in range(3)] == [1, 4, 7]


def test_a_number_that_a_client_brings_stays_its_own_and_is_given_to_nobody_else() -> None:
    for first, step in ((0, 1), (2, 3)):
        numbers = ClientNumbers(first, step)
        assert numbers.number(5) == 5
        given = [numbers.number(None) for _ in range(3)]
        assert min(given) > 5
        assert {number % step for number in given} == {first}
        assert numbers.number(4) == 4
        assert numbers.number(None) == given[-1] + step


def test_a_number_beyond_all_counting_does_not_use_up_the_others() -> None:
    numbers = ClientNumbers(0, 1)
    assert numbers.number(2**64 - 1) == 2**64 - 1
    assert numbers.number(None) == 0


def test_a_process_that_comes_later_gives_numbers_of_its_own_whatever_clients_bring_from_one_process_to_the_other() -> None:
    first, second, added, next_added = (ClientNumbers(*numbers_of(index, 2)) for index in range(4))
    given: list[int] = []
    for _ in range(50):
        for numbers, other in ((first, added), (added, next_added), (second, first), (next_added, second)):
            given.append(numbers.number(None))
            assert other.number(given[-1]) == given[-1]
    assert len(set(given)) == len(given)
    assert (given[:3], given[4]) == ([0, 2 * 2**32, 1], 2)


@pytest.mark.long
def test_a_server_gives_each_client_another_number_and_leaves_one_that_comes_back_its_own() -> None:
    with running_serving_loop() as harness:
        clients = [harness.client() for _ in range(3)]
        for client in clients:
            client.connect()
        assert [client.client_number for client in clients] == [0, 1, 2]
