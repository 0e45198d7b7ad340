"""What is said of a run on a cluster: waits of clients, pauses of learning, and what was acknowledged beside what was recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cluster.judgement import Event, Went, longest_gap_s, longest_pause, of_acting, of_double_counts, of_learning, of_process
from benchmarks.cluster.labels import ACTIONS, LABELS, labels_of, mixed_up, observations
from benchmarks.cluster.ledger import Acknowledged, Ledger, merged
from benchmarks.cluster.record import Record, Report, Update

BOOT = "0123456789abcdef"


def test_a_wait_begins_at_the_event_and_ends_with_the_place_s_next_action() -> None:
    times, places = np.array([9.0, 9.5, 12.0, 31.0, 32.0]), np.array([0, 1, 1, 0, 1])
    assert longest_gap_s(times, places, 2, 10.0, 25.0, 40.0) == (21.0, 0)
    assert longest_gap_s(times, places, 2, 31.5, 40.0, 40.0) == (8.5, 0), "until the end, for it acts no more"
    assert longest_gap_s(times, places, 3, 10.0, 25.0, 40.0) == (30.0, 2), "one that never acted"


def test_a_wait_that_begins_within_the_time_after_an_event_counts_and_a_later_one_does_not() -> None:
    times = np.array([9.0, 14.0, 34.0, 36.0, 39.0])
    assert longest_gap_s(times, np.zeros(5, np.int64), 1, 10.0, 25.0, 40.0) == (20.0, 0)
    assert longest_gap_s(times, np.zeros(5, np.int64), 1, 10.0, 14.0, 40.0) == (4.0, 0), "the next event's"
    times = np.array([9.0, 14.0, 26.0, 39.0])
    assert longest_gap_s(times, np.zeros(4, np.int64), 1, 10.0, 25.0, 40.0) == (12.0, 0)


def test_a_pause_is_from_the_end_of_an_update_to_the_beginning_of_the_next_or_to_the_end() -> None:
    one, two, nine, ten = (Update(float(time), time / 16) for time in (1, 2, 8, 10))
    assert longest_pause([one, two, nine, ten], 5.0, 12.0) == (5.5, 0.5)
    assert longest_pause([one, two], 5.0, 12.0) == (10.0, 0.0)
    assert longest_pause([], 5.0, 12.0) == (7.0, 0.0)
    assert longest_pause([one, two, nine, ten], 9.5, 11.0) == (1.375, 0.625)


def ledger_of(actions: int = 100, steps: int = 90, reward: float = 45.0) -> Ledger:
    ledger = Ledger()
    part = ledger.of(BOOT)
    part.target, part.actions, part.steps, part.reward = "10.77.0.2:9900", actions, steps, reward
    part.episodes = {"a": (3, 1.5)}
    return ledger


def record_of(*reports: Report, episodes: tuple[tuple[str, int, float, str], ...] = (("a", 3, 1.5, "terminated"),)) -> Record:
    return Record({BOOT: reports}, {BOOT[:8]: episodes}, [Update(time_s, 0.5) for time_s in (1.0, 2.0, 4.0, 11.5)], 0)


def met(ledger: Ledger, record: Record, went: Went) -> bool:
    return all(finding.is_met for finding in of_process(ledger, record, went))


def test_a_process_that_served_all_along_has_recorded_what_was_acknowledged() -> None:
    went = Went(BOOT)
    assert met(ledger_of(), record_of(Report(20.0, 100, 90, 45.0, {})), went)
    for report in (Report(20.0, 99, 90, 45.0, {}), Report(20.0, 100, 91, 45.0, {}), Report(20.0, 100, 90, 45.5, {})):
        assert not met(ledger_of(), record_of(report), went)
    assert not met(ledger_of(), record_of(), went), "no report"


@pytest.mark.parametrize("episodes", [(), (("a", 2, 1.5, "terminated"),), (("a", 3, 1.5, "terminated"), ("b", 1, 1.0, "lost"))])
def test_its_episodes_are_recorded_one_by_one(episodes: tuple[tuple[str, int, float, str], ...]) -> None:
    assert not met(ledger_of(), record_of(Report(20.0, 100, 90, 45.0, {}), episodes=episodes), Went(BOOT))


def test_of_a_killed_process_the_last_two_seconds_and_the_rows_in_flight_may_be_missing() -> None:
    ledger, went = ledger_of(), Went(BOOT, "killed", 20.0)
    ledger.note_call(17.0, 17.5, [BOOT] * 50)
    ledger.note_call(18.5, 19.0, [BOOT] * 7)
    ledger.note_call(19.9, 25.0, [BOOT] * 4)
    assert ledger.in_flight(BOOT, 20.0) == 4
    for actions in (104, 100, 93, 89):  # 11 were answered from 18 s on
        assert met(ledger, record_of(Report(19.0, actions, 90, 45.0, {})), went), actions
    for actions in (105, 88):
        assert not met(ledger, record_of(Report(19.0, actions, 90, 45.0, {})), went), actions


def test_of_a_process_that_was_cut_off_and_came_back_nothing_may_be_missing_but_what_was_in_flight() -> None:
    ledger, went = ledger_of(), Went(BOOT, "cut off", 20.0)
    ledger.note_call(18.5, 19.0, [BOOT] * 7)
    ledger.note_call(19.9, 25.0, [BOOT] * 4)
    assert met(ledger, record_of(Report(60.0, 104, 90, 45.0, {})), went)
    assert not met(ledger, record_of(Report(60.0, 99, 90, 45.0, {})), went)
    assert not met(ledger, record_of(Report(60.0, 105, 90, 45.0, {})), went)
    ledger.note_call(20.1, 25.0, [BOOT])  # it came through, for the cut took a moment
    assert met(ledger, record_of(Report(60.0, 105, 90, 45.0, {})), replace(went, done_s=20.2))


def test_bars_of_acting_and_learning_are_held() -> None:
    ledger = ledger_of()
    ledger.note_acted(9.0, np.array([0, 1]))
    ledger.note_acted(21.0, np.array([0, 1]))
    assert all(finding.is_met for finding in of_acting(ledger, 2, [Event("killed", 10.0)], 22.0))
    ledger.mixed_up = 1
    assert [finding.what for finding in of_acting(ledger, 2, [Event("killed", 10.0)], 22.0) if not finding.is_met] == ["actions mixed up"]
    (finding,) = (each for each in of_learning(record_of(), [Event("killed", 10.0)], 0.0, 40.0) if not each.is_met)
    assert finding.figure.startswith("28.5 s")


def test_an_episode_of_two_processes_is_found() -> None:
    twice = {"one": [("a", 1, 1.0, "terminated")], "two": [("a", 1, 1.0, "terminated")]}
    assert of_double_counts(record_of()).is_met
    assert not of_double_counts(Record({}, twice, [], 0)).is_met


def test_ledgers_of_two_processes_are_added_and_kept_in_files(tmp_path: Path) -> None:
    kept = []
    for number in range(2):
        ledger = ledger_of()
        ledger.note_acted(float(number), np.array([0, 1]))
        ledger.note_call(1.0, 2.0, [BOOT, BOOT, "other"])
        ledger.errors["EpisodeLostError"] += 1
        ledger.of(BOOT).episodes = {f"episode {number}": (number, 1.0)}
        ledger.save(tmp_path / f"{number}.json")
        kept.append(Ledger.load(tmp_path / f"{number}.json"))
    total = merged(kept, 2)
    times, places = total.acted()
    assert times.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert places.tolist() == [0, 1, 2, 3]
    assert total.in_flight(BOOT, 1.5) == 4
    assert total.errors == {"EpisodeLostError": 2}
    assert total.of(BOOT) == Acknowledged("10.77.0.2:9900", 200, 180, 90.0, {"episode 0": (0, 1.0), "episode 1": (1, 1.0)})


def test_an_action_of_another_label_is_seen() -> None:
    observed = observations(np.random.default_rng(0), 1_000)
    labels = labels_of(observed)
    assert set(labels.tolist()) == set(range(LABELS))
    actions = labels * (ACTIONS // LABELS) + np.arange(1_000) % 2
    assert mixed_up(observed, actions) == 0
    assert mixed_up(observed, np.roll(actions, 1)) > 900
