"""A policy is rolled back for its return where it is worse than the incumbent by more than chance, in the same range of exploration."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from policyserver.server.guard.return_judge import ReturnJudge, ReturnVerdict, exploration_range

EPISODES = 30
SAVE, REPLACE, KEEP, ROLL_BACK = ReturnVerdict.SAVE, ReturnVerdict.REPLACE, ReturnVerdict.KEEP, ReturnVerdict.ROLL_BACK


class World:
    """Episodes of a policy with a mean return, and a judge of them; each update has a policy version of its own."""

    def __init__(self, seed: int = 0, drop: float = 0.3, false_alarm: float = 1e-5) -> None:
        self.judge = ReturnJudge(EPISODES, false_alarm, drop)
        self.random = np.random.default_rng(seed)
        self.version = 0
        self.saves = 0

    def update(self, mean: float, spread: float = 10.0, exploration: int = 0, episodes: int = EPISODES) -> ReturnVerdict | None:
        """Play some episodes; a verdict is followed at once."""
        return self.played(self.random.normal(mean, spread, episodes).tolist(), exploration)

    def played(self, returns: list[float], exploration: int = 0) -> ReturnVerdict | None:
        self.version += 1
        verdict = self.judge.add([(each, self.version) for each in returns], exploration)
        if verdict is SAVE:
            self.saves += 1
            self.judge.begin(self.version + 1)
        elif verdict is ROLL_BACK:
            self.judge.begin_again(self.version + 1)
        return verdict

    def with_incumbent(self, mean: float = 200.0) -> World:
        """Learn from 20 on to a mean, and measure the incumbent there."""
        assert [self.update(each) for each in (20.0, 20.0, mean, mean)] == [SAVE, REPLACE, SAVE, REPLACE]
        assert self.judge.incumbent is not None
        assert self.judge.incumbent.mean == pytest.approx(mean, abs=10.0)
        return self


def test_one_that_has_lost_more_than_the_drop_of_what_was_learned_is_rolled_back() -> None:
    world = World(drop=0.5).with_incumbent()
    assert world.update(150.0) is None
    assert world.update(60.0) is ROLL_BACK
    assert world.judge.in_a_row == 1


@pytest.mark.parametrize(("episodes", "most"), [(60, 1), (15, 1), (5, 4), (2, 10), (1, 20)])
def test_a_sudden_fall_is_seen_after_some_twenty_episodes_however_few_end_in_an_update(episodes: int, most: int) -> None:
    for seed in range(5):
        world = World(seed).with_incumbent()
        for _ in range(200):
            assert world.update(200.0, episodes=episodes) is not ROLL_BACK
        assert ROLL_BACK in [world.update(20.0, episodes=episodes) for _ in range(most)]


def test_a_better_one_is_the_next_incumbent_and_is_measured_by_later_episodes_than_those_that_chose_it() -> None:
    world = World().with_incumbent()
    assert world.update(400.0) is SAVE
    assert world.update(300.0) is REPLACE
    assert world.judge.incumbent is not None
    assert world.judge.incumbent.mean == pytest.approx(300.0, abs=10.0)


def test_until_the_next_incumbent_is_measured_the_one_before_it_stands() -> None:
    world = World().with_incumbent()
    assert world.update(400.0) is SAVE
    assert world.update(20.0, episodes=15) is ROLL_BACK
    assert world.update(200.0) is REPLACE
    assert world.update(400.0) is SAVE
    assert world.update(20.0) is ROLL_BACK, "and a bad one is not measured in its place"


def test_what_is_not_better_by_the_episodes_that_measure_it_is_not_taken() -> None:
    world = World().with_incumbent()
    before = world.judge.incumbent
    assert world.update(210.0) is SAVE
    assert world.update(180.0) is KEEP
    assert world.judge.incumbent is before
    assert world.update(210.0) is SAVE
    assert world.update(210.0) is REPLACE


def test_after_a_roll_back_the_incumbent_is_measured_again_so_a_harder_world_fires_once() -> None:
    world = World().with_incumbent()
    assert world.update(60.0) is ROLL_BACK
    assert ROLL_BACK not in [world.update(60.0) for _ in range(100)]


def test_roll_backs_in_a_row_are_counted_until_a_window_is_good() -> None:
    world = World().with_incumbent()
    for number in (1, 2):
        assert world.update(20.0) is ROLL_BACK
        assert world.judge.in_a_row == number
        assert world.update(200.0) is REPLACE, "the incumbent, measured again"
    assert world.update(199.0, spread=0.1) in (None, SAVE)
    assert world.judge.in_a_row == 0


def test_what_acted_before_a_roll_back_does_not_count() -> None:
    world = World().with_incumbent()
    assert world.update(20.0) is ROLL_BACK
    assert world.judge.add([(20.0, world.version)] * 100, 0) is None
    assert world.update(200.0) is REPLACE
    world.judge.forget(oldest_version=1000)
    assert world.judge.add([(20.0, 999)] * 100, 0) is None
    assert world.judge.add([(20.0, 1000)] * 30, 0) is SAVE


def test_other_ranges_of_exploration_are_not_compared() -> None:
    world = World().with_incumbent()
    assert [world.update(each, exploration=3) for each in (0.0, 0.0, 200.0)] == [SAVE, REPLACE, SAVE]


def test_while_a_verdict_to_save_is_followed_no_other_is_saved() -> None:
    judge = ReturnJudge(20, 1e-5, 0.5)
    assert judge.add([(1.0, 1)] * 20, 0) is SAVE
    assert judge.add([(1.0, 1)] * 200, 0) is None
    judge.decline()
    assert judge.add([(1.0, 1)] * 19, 0) is None
    assert judge.add([(1.0, 1)], 0) is SAVE
    judge.begin(3)
    assert judge.add([(1.0, 2)] * 100, 0) is None, "not what it is measured by"
    assert judge.add([(1.0, 3)] * 20, 0) is REPLACE
    judge.forget()
    assert judge.add([(1.0, 5)] * 20, 0) is SAVE


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator], list[float]]] = {
    "normal": lambda random: random.normal(200.0, 150.0, 12).tolist(),
    "skewed": lambda random: random.exponential(200.0, 12).tolist(),
    "heavy tails": lambda random: random.standard_cauchy(12).tolist(),
    "two values": lambda random: random.choice([0.0, 1.0], 12, p=[0.1, 0.9]).tolist(),
}


@pytest.mark.long
@pytest.mark.parametrize("play", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_the_error_is_at_most_the_stated_one_for_each_incumbent(play: Callable[[np.random.Generator], list[float]]) -> None:
    """With a large error, so that it can be seen: 0.1 for each incumbent, and no loss is let pass."""
    fired = incumbents = 0
    for seed in range(40):
        world = World(seed, drop=1e-9, false_alarm=0.1)
        for _ in range(50):
            verdict = world.played(play(world.random))
            fired += verdict is ROLL_BACK
            incumbents += verdict in (REPLACE, KEEP)
    assert incumbents > 40
    assert fired <= 0.1 * incumbents + 3 * math.sqrt(0.1 * incumbents)


@pytest.mark.long
def test_chance_alone_does_not_fire() -> None:
    for seed in range(20):
        world = World(seed).with_incumbent()
        assert ROLL_BACK not in [world.update(200.0, spread=150.0) for _ in range(50)]


def test_the_range_of_an_epsilon_follows_its_schedule() -> None:
    schedule = [(0, 1.0), (20_000, 0.02)]
    ranges = [exploration_range(schedule, steps) for steps in (0, 10_000, 20_000, 10**6)]
    assert ranges == [20, 10, 0, 0]
    assert exploration_range(0.1, 5) == exploration_range(0.1, 10**6)
