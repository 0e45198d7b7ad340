"""How many serving actors there may be, what is done one after another, and what is left where something fails."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, cast

import pytest
from ray.rllib import algorithms
from ray.rllib.algorithms.dqn.dqn import calculate_rr_weights

from policyserver.server.daemon.node_room import room_on
from policyserver.server.daemon.rolling_restart import Removed, RestartError
from policyserver.server.daemon.scale_errors import BoundsError, NoRoomError, ScaleError
from policyserver.server.daemon.scaling import Scaling
from policyserver.server.daemon.serving_actors import BuildError, intensity_factor


class Actors:
    """Actors that come and go as the daemon's do, but have no processes; and how one leaves."""

    def __init__(self, number: int, most: int = 4) -> None:
        self.number, self.most = number, most
        self.listen_by_themselves = False
        self.done: list[str] = []
        self.failing: dict[str, Exception] = {}

    def _do(self, what: str) -> None:
        if (error := self.failing.get(what)) is not None:
            raise error
        self.done.append(what)

    def build(self, wait: Callable[[float], bool]) -> tuple[Any, str]:
        self._do(f"build {self.number + 1}")
        return object(), f"host:{self.number + 1}"

    def take_up(self, actor: Any) -> Future[int]:
        answer: Future[int] = Future()
        try:
            self._do(f"take up {self.number + 1}")
            self.number += 1
            answer.set_result(self.number)
        except Exception as error:
            answer.set_exception(error)
        return answer

    def discard(self, actor: Any) -> None:
        self._do(f"discard {self.number + 1}")

    def remove(self, index: int, drain_timeout_s: float = 0.0, force: object = None) -> Removed:
        self._do(f"remove {index} in {drain_timeout_s:g} s")
        self.number -= 1
        return Removed(index, 0, 1.0)

    def scaling(self, *, is_paused: bool = False, check_room: Callable[[int], None] = lambda more: None) -> Scaling:
        return Scaling(cast(Any, self), cast(Any, self), lambda seconds: False, lambda: is_paused, check_room)


def test_actors_come_one_by_one_and_the_last_goes_first() -> None:
    actors = Actors(1)
    grown = actors.scaling().run(3, 5.0)
    assert (grown.before, grown.actors, [(each.number, each.address) for each in grown.added]) == (1, 3, [(2, "host:2"), (3, "host:3")])
    assert actors.done == ["build 2", "take up 2", "build 3", "take up 3"]
    shrunk = actors.scaling().run(1, 5.0)
    assert (shrunk.before, shrunk.actors, [each.number for each in shrunk.removed]) == (3, 1, [3, 2])
    assert actors.done[4:] == ["remove 3 in 5 s", "remove 2 in 5 s"]


def test_as_many_as_there_are_is_no_change() -> None:
    actors = Actors(2)
    done = actors.scaling(is_paused=True).run(2, 5.0)
    assert (done.before, done.actors, done.added, done.removed, actors.done) == (2, 2, [], [], [])


@pytest.mark.parametrize("wanted", [0, 5, 2**63])
def test_a_number_out_of_bounds_is_refused(wanted: int) -> None:
    actors = Actors(2)
    with pytest.raises(BoundsError, match=f"actors: expected 1 to 4, received {wanted}; .* listen.max_actors"):
        actors.scaling().run(wanted, 5.0)
    assert actors.done == []


def test_a_server_whose_learner_serves_is_refused() -> None:
    with pytest.raises(ScaleError, match="num_env_runners = 0"):
        Actors(0).scaling().run(2, 5.0)


def test_fewer_while_learning_is_paused_are_refused_and_more_are_not() -> None:
    actors = Actors(2)
    with pytest.raises(ScaleError, match="paused: `policy-server ctl resume`"):
        actors.scaling(is_paused=True).run(1, 5.0)
    assert actors.scaling(is_paused=True).run(3, 5.0).actors == 3


def test_where_clients_could_not_be_told_of_another_one_none_comes() -> None:
    actors = Actors(2)
    actors.listen_by_themselves = True
    with pytest.raises(ScaleError, match="received port 0 or an environment of"):
        actors.scaling().run(3, 5.0)
    assert actors.scaling().run(1, 5.0).actors == 1


def test_without_room_nothing_is_begun() -> None:
    def check_room(more: int) -> None:
        raise NoRoomError(f"room for {more} more")

    actors = Actors(1)
    with pytest.raises(NoRoomError, match="room for 3 more"):
        actors.scaling(check_room=check_room).run(4, 5.0)
    assert actors.done == []


@pytest.mark.parametrize("failing", [BuildError("actor 3: port in use"), RestartError("actor 3: learning is paused")])
def test_what_was_changed_before_a_failure_stays_and_is_said(failing: Exception) -> None:
    begun, wanted = (1, 4) if isinstance(failing, BuildError) else (4, 1)
    actors = Actors(begun)
    actors.failing = {"build 3": failing, "remove 3 in 5 s": failing}
    now = 2 if wanted == 4 else 3
    with pytest.raises(ScaleError, match=f"{failing}. There are {now} serving actors now, {begun} before, {wanted} wanted"):
        actors.scaling().run(wanted, 5.0)
    assert actors.number == now


def test_an_actor_that_is_built_and_not_taken_up_is_ended() -> None:
    actors = Actors(1)
    actors.failing = {"take up 2": ValueError("the server drains")}
    with pytest.raises(ValueError, match="drains"):
        actors.scaling().run(2, 5.0)
    assert (actors.done, actors.number) == (["build 2", "discard 2"], 1)


@pytest.mark.parametrize("algorithm", ["DQN", "SAC"])
@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 2), (2, 1), (1, 8), (3, 5)])
def test_as_many_updates_follow_a_step_whatever_the_number_of_actors(algorithm: str, before: int, after: int) -> None:
    def updates_per_step(actors: int, intensity: float) -> float:
        config = getattr(algorithms, f"{algorithm}Config")()
        config.env_runners(num_env_runners=actors, rollout_fragment_length=32)
        config.training(train_batch_size_per_learner=64, training_intensity=intensity)
        rounds, updates = calculate_rr_weights(config)
        return float(updates / (rounds * actors * 32))

    factor = intensity_factor(before, after)
    assert updates_per_step(after, 64.0 * factor) == pytest.approx(updates_per_step(before, 64.0), rel=0.02)


@pytest.mark.parametrize(
    ("free", "wanted", "room"),
    [
        ({"CPU": 3.5}, {"CPU": 1.0}, 3),
        ({"CPU": 8.0, "serving": 1.0}, {"CPU": 1.0, "serving": 1.0}, 1),
        ({"CPU": 8.0}, {"CPU": 1.0, "serving": 1.0}, 0),
        ({"CPU": 8.0}, {"CPU": 0.0}, 5),
        ({}, {"CPU": 1.0}, 0),
        ({"CPU": 0.3}, {"CPU": 0.1}, 3),
    ],
)
def test_a_node_takes_as_many_as_its_scarcest_resource_allows(free: dict[str, float], wanted: dict[str, float], room: int) -> None:
    assert room_on(free, wanted, 5) == room
