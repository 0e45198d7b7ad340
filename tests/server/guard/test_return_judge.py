"""A policy is rolled back for its return where it is worse than the incumbent by more than chance, in the same range of exploration."""

from __future__ import annotations

import numpy as np
import pytest

from policyserver.server.guard.return_judge import ReturnJudge, ReturnVerdict, exploration_range

EPISODES = 30


class World:
    """Episodes of a policy with a mean return, and a judge of them; each window has a policy version of its own."""

    def __init__(self, seed: int = 0) -> None:
        self.judge = ReturnJudge(EPISODES, sigmas=4.0, drop=0.5)
        self._random = np.random.default_rng(seed)
        self.version = 0

    def window(self, mean: float, spread: float = 10.0, exploration: int = 0) -> ReturnVerdict | None:
        """Play as many episodes as are compared at a time; a verdict is followed at once."""
        self.version += 1
        returns = self._random.normal(mean, spread, EPISODES)
        verdict = self.judge.add(((float(each), self.version) for each in returns), exploration)
        if verdict is not None:
            self.judge.begin(self.version + 1)
        return verdict

    def with_incumbent(self, mean: float = 200.0) -> World:
        """Learn from 20 on to a mean, and measure the incumbent there."""
        assert self.window(20.0) is ReturnVerdict.SAVE
        assert self.window(20.0) is None
        assert self.window(mean) is ReturnVerdict.SAVE
        assert self.window(mean) is None
        assert self.judge.incumbent is not None
        assert self.judge.incumbent.mean == pytest.approx(mean, abs=10.0)
        return self


def test_one_that_has_lost_more_than_half_of_what_was_learned_is_rolled_back() -> None:
    world = World().with_incumbent()
    assert world.window(150.0) is None
    assert world.window(60.0) is ReturnVerdict.ROLL_BACK
    assert world.judge.in_a_row == 1


def test_a_better_one_is_the_next_incumbent_and_is_measured_by_later_episodes_than_those_that_chose_it() -> None:
    world = World().with_incumbent()
    assert world.window(400.0) is ReturnVerdict.SAVE
    assert world.judge.incumbent is None
    assert world.window(300.0) is None
    assert world.judge.incumbent is not None
    assert world.judge.incumbent.mean == pytest.approx(300.0, abs=10.0)


def test_after_a_roll_back_the_incumbent_is_measured_again_so_a_harder_world_fires_once() -> None:
    world = World().with_incumbent()
    assert world.window(60.0) is ReturnVerdict.ROLL_BACK
    assert [world.window(60.0) for _ in range(10)].count(ReturnVerdict.ROLL_BACK) == 0


def test_roll_backs_in_a_row_are_counted_until_a_window_is_good() -> None:
    world = World().with_incumbent()
    for number in (1, 2):
        assert world.window(20.0) is ReturnVerdict.ROLL_BACK
        assert world.judge.in_a_row == number
        assert world.window(200.0) is None, "the incumbent, measured again"
    assert world.window(199.0, spread=0.1) in (None, ReturnVerdict.SAVE)
    assert world.judge.in_a_row == 0


def test_what_acted_before_the_incumbent_was_served_does_not_count() -> None:
    world = World().with_incumbent()
    assert world.judge.add([(0.0, 0)] * 100, 0) is None
    assert world.window(200.0) in (None, ReturnVerdict.SAVE)


def test_other_ranges_of_exploration_are_not_compared() -> None:
    world = World().with_incumbent()
    assert world.window(0.0, exploration=3) is ReturnVerdict.SAVE
    assert world.window(0.0, exploration=3) is None
    assert world.window(200.0, exploration=3) is ReturnVerdict.SAVE


def test_while_a_verdict_is_followed_nothing_is_judged() -> None:
    judge = ReturnJudge(5, 4.0, 0.5)
    assert judge.add([(1.0, 1)] * 5, 0) is ReturnVerdict.SAVE
    assert judge.add([(1.0, 1)] * 50, 0) is None
    judge.decline()
    assert judge.add([(1.0, 1)] * 4, 0) is None
    assert judge.add([(1.0, 1)], 0) is ReturnVerdict.SAVE
    judge.forget()
    assert judge.add([(1.0, 1)] * 5, 0) is ReturnVerdict.SAVE


def test_chance_alone_does_not_fire() -> None:
    fired = 0
    for seed in range(20):
        world = World(seed).with_incumbent()
        fired += sum(world.window(200.0, spread=150.0) is ReturnVerdict.ROLL_BACK for _ in range(50))
    assert fired == 0


def test_the_range_of_an_epsilon_follows_its_schedule() -> None:
    schedule = [(0, 1.0), (20_000, 0.02)]
    ranges = [exploration_range(schedule, steps) for steps in (0, 10_000, 20_000, 10**6)]
    assert ranges == [20, 10, 0, 0]
    assert exploration_range(0.1, 5) == exploration_range(0.1, 10**6)
