"""Contenders take turns, and what is said of them follows from their windows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from benchmarks.speed import alternation, echo
from benchmarks.speed.alternation import alternate, groups, measure_group, typical
from benchmarks.speed.case import Bar, Beside, Case, Contender, Floor
from benchmarks.speed.cases import CASES
from benchmarks.speed.peers.table import MissingError, Peer
from benchmarks.speed.servers import Servers
from benchmarks.windows import Figures, Window

SPEEDS = {"ours": [100.0, 90.0, 200.0], "theirs": [10.0, 30.0, 10.0], "floor": [50.0, 100.0, 100.0]}


class Turns:
    """Stand-ins for contenders that give the next of their figures with each window, and the order in which they were asked."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.seconds: dict[str, float] = {}

    @contextmanager
    def running(self, name: str) -> Iterator[Window]:
        speeds = iter(SPEEDS[name])

        def window(seconds: float) -> Figures:
            self.order.append(name)
            self.seconds[name] = seconds
            speed = next(speeds)
            return {"steps_per_s": speed, "p50_ms": 1e3 / speed, "p99_ms": 2e3 / speed, "max_ms": speed}

        yield window

    def contender(self, name: str) -> Contender:
        return lambda servers: self.running(name)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    found = Turns()
    monkeypatch.setattr(echo, "running", lambda floor: found.running("floor"))
    monkeypatch.setattr(alternation, "PEERS", {"peer": Peer("a peer", lambda: found.running("theirs"))})
    return found


def measured(cases: list[Case], seconds: float = 1.0) -> list[dict[str, Any]]:
    with Servers() as servers:
        return measure_group(cases, servers, seconds, None)


def test_contenders_alternate() -> None:
    order: list[str] = []

    def window(name: str) -> Window:
        def measure(seconds: float) -> Figures:
            order.append(name)
            return {"steps_per_s": float(len(order))}

        return measure

    found = alternate({"a": window("a"), "b": window("b")}, {"a": 3, "b": 2}, {"a": 1.0, "b": 1.0})
    assert order == ["a", "b", "a", "b", "a"]
    assert [figures["steps_per_s"] for figures in found["b"]] == [2.0, 4.0]


def test_each_case_of_a_group_has_its_own_windows_and_those_it_is_held_against_as_many(turns: Turns) -> None:
    first = Case("first", "says", turns.contender("ours"), rounds=1)
    beside = Case("beside", "says", turns.contender("theirs"), beside=Beside("first", "it"), rounds=3)
    other, once = Case("other", "says", turns.contender("floor"), rounds=2), Case("once", "says", turns.contender("ours"), rounds=1)
    results = measured([first, beside, other, once])
    assert turns.order == ["ours", "theirs", "floor", "ours", "ours", "theirs", "floor", "ours", "theirs"]
    assert [result["rounds"] for result in results] == [3, 3, 2, 1]
    assert len(results[1]["pairs"]["throughput_of_it"]) == 3
    of_bars = {case.name: case.rounds for case in CASES}
    assert {of_bars[name] for name in ("rollback_idle", "rollback_busy", "two_policies_64", "shadow_64")} == {5}


def test_a_case_is_held_against_its_peer_and_its_floor_round_by_round(turns: Turns) -> None:
    bars = (Bar("steps_per_s", at_least=101), Bar("ratio_to_peer", at_least=10))
    (result,) = measured([Case("c", "says", turns.contender("ours"), bars, Floor(1), "peer")], 5.0)
    assert turns.order == ["ours", "floor", "theirs"] * 3
    assert turns.seconds == {"ours": 5.0, "floor": 3.0, "theirs": 5.0}
    assert result["steps_per_s"] == 100.0
    assert result["max_ms"] == 200.0, "the longest call of all rounds, not their median"
    assert result["pairs"] == {"ratio_to_floor": [2.0, 0.9, 2.0], "ratio_to_peer": [10.0, 3.0, 20.0]}
    assert (result["ratio_to_floor"], result["ratio_to_peer"]) == (2.0, 10.0)
    assert result["peer_figures"]["steps_per_s"] == 10.0
    assert result["bars"] == {"steps_per_s >= 101": False, "ratio_to_peer >= 10": True}
    assert len(result["windows"]) == result["rounds"] == 3


def test_a_slower_machine_by_its_floor_gets_bars_in_proportion(turns: Turns) -> None:
    (result,) = measured([Case("c", "says", turns.contender("ours"), (Bar("steps_per_s", at_least=150),), Floor(1, 1, 200.0))])
    assert result["bars_are_for_speed"] == 0.5
    assert result["bars"] == {"steps_per_s >= 75": True}


def test_a_peer_that_is_missing_is_said_and_not_invented(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> AbstractContextManager[Window]:
        raise MissingError("run `make bench-peers`")

    monkeypatch.setattr(alternation, "PEERS", {"peer": Peer("a peer", missing)})
    (result,) = measured([Case("c", "says", turns.contender("ours"), (Bar("ratio_to_peer", at_least=10),), peer="peer")])
    assert result["peer_missing"] == "run `make bench-peers`"
    assert result["bars"] == {"ratio_to_peer >= 10": None}
    assert not {"ratio_to_peer", "peer_figures"} & set(result)


def test_a_case_that_is_missing_is_said_and_those_beside_it_are_measured(turns: Turns) -> None:
    def missing(servers: Servers) -> AbstractContextManager[Window]:
        raise MissingError("no GPU")

    here = Case("here", "says", turns.contender("ours"))
    elsewhere = Case("elsewhere", "says", missing, (Bar("ratio_to_peer", at_least=2),), Floor(1), "peer", Beside("here", "it"))
    result, gone = measured([here, elsewhere])
    assert turns.order == ["ours"] * 3, "nobody is measured beside it"
    assert result["steps_per_s"] == 100.0
    assert gone == {"case": "elsewhere", "says": "says", "window_s": 1.0, "missing": "no GPU", "bars": {"ratio_to_peer >= 2": None}}


def test_a_case_beside_another_takes_turns_with_it(turns: Turns) -> None:
    idle = Case("idle_case", "says", turns.contender("ours"))
    busy = Case("busy_case", "says", turns.contender("theirs"), (Bar("p99_of_idle", at_most=2),), beside=Beside("idle_case", "idle"))
    _, result = measured([idle, busy])
    assert turns.order == ["ours", "theirs"] * 3
    assert result["throughput_of_idle"] == pytest.approx(0.1)
    assert result["p99_of_idle"] == pytest.approx(10)
    assert result["bars"] == {"p99_of_idle <= 2": False}


def test_groups_join_a_case_and_those_held_against_it_if_it_is_measured_at_all() -> None:
    joined = [[case.name for case in group] for group in groups(CASES)]
    of_64_threads = ["threads_64_mlp", "threads_64_mlp_busy", "threads_64_mlp_one_core", "two_policies_64", "shadow_64", "threads_4x16_mlp"]
    assert of_64_threads in joined
    assert ["threads_1_mlp", "threads_1_mlp_busy", "threads_1_mlp_unix"] in joined
    alone = [case for case in CASES if case.name == "threads_64_mlp_busy"]
    assert groups(alone) == [alone]
    assert all(case.beside.case in {other.name for other in CASES} for case in CASES if case.beside)


def test_what_must_not_happen_even_once_is_not_hidden_by_a_median() -> None:
    windows = [
        {"episodes_leaked": leaked, "reward_sum_off_by": off, "memory_before_mb": before, "memory_mb": after}
        for leaked, off, before, after in ((0, 0, 100, 150), (3, -2, 105, 154), (0, 0, 110, 156))
    ]
    assert typical(windows) == {"episodes_leaked": 3, "reward_sum_off_by": -2, "memory_first_mb": 50, "memory_again_mb": 3}


def test_percentiles_are_medians_of_the_rounds() -> None:
    windows = [{"percentiles_ms": [[50.0, ms], [99.0, 10 * ms]]} for ms in (1.0, 3.0, 2.0)]
    assert typical(windows) == {"percentiles_ms": [[50.0, 2.0], [99.0, 20.0]]}


def test_a_figure_that_a_window_does_not_have_is_that_of_the_others() -> None:
    windows: list[dict[str, Any]] = [{"return_mean": None, "net": "a", "none": None}, {"return_mean": 3.0, "net": "a", "none": None}]
    assert typical(windows) == {"return_mean": 3.0, "net": "a", "none": None}


def test_names_of_bars_are_figures_that_somebody_gives() -> None:
    given = "steps_per_s p50_ms p99_ms max_ms episodes_open episodes_leaked reward_sum_off_by actions_mixed_up returns_mixed_up"
    more = "memory_again_mb bytes_per_episode growth_mb_per_100000 ratio_to_peer throughput_of_idle p99_of_idle throughput_of_live"
    assert {bar.key for case in CASES for bar in case.bars} <= set(re.split(r"\s", f"{given} {more}"))
