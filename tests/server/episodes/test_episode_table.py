"""A handle is good for one episode of one client, and the newest finished episodes are remembered with how they ended."""

from __future__ import annotations

import numpy as np

from policyserver.server.episodes.episode_table import EpisodeTable, ServedClient


def table_of(max_open: int = 4, remembered: int = 3) -> EpisodeTable:
    return EpisodeTable(max_open, remembered, [np.full(2, 0.5, np.float32)], ((), np.dtype(np.int64)))


def play(table: EpisodeTable, client: ServedClient, episode_id: str, *, idle: bool = False) -> int:
    slot = table.open_episode(client, episode_id, training=True, now_s=0.0)
    table.next_sequence[slot] = 3
    handle = table.handle(slot)
    table.close_episode(slot, idle=idle)
    return handle


def test_a_handle_is_good_for_one_episode_of_one_client() -> None:
    table = table_of()
    mine, other = table.client("mine"), table.client("other")
    slot = table.open_episode(mine, "a", training=True, now_s=0.0)
    handles = np.array([table.handle(slot)] * 2 + [0, 2**64 - 1, table.handle(slot) + 4], np.uint64)
    slots, known = table.slots_of(handles, np.array([mine.index, other.index, mine.index, mine.index, mine.index]))
    assert known.tolist() == [True, False, False, False, False]
    assert slots[0] == slot
    table.close_episode(slot, idle=False)
    assert table.open_episode(mine, "b", training=True, now_s=0.0) == slot
    assert not table.slots_of(handles[:1], np.array([mine.index]))[1].any()


def test_only_the_newest_finished_episodes_are_remembered() -> None:
    table = table_of(remembered=3)
    client = table.client("mine")
    handles = [play(table, client, f"{number}") for number in range(5)]
    assert [table.finished(handle, "mine") is not None for handle in handles] == [False, False, True, True, True]
    assert [table.finished_by_id("mine", f"{number}") is not None for number in range(5)] == [False, False, True, True, True]
    assert table.finished(handles[4], "other") is None
    assert (len(table._finished), len(table._finished_by_id), table.open) == (3, 3, 0)


def test_nothing_is_remembered_if_so_configured() -> None:
    table = table_of(remembered=0)
    handle = play(table, table.client("mine"), "a")
    assert table.finished(handle, "mine") is None


def test_what_is_remembered_says_how_the_episode_ended() -> None:
    table = table_of()
    client = table.client("mine")
    ended, idle = (table.finished(play(table, client, name, idle=name == "idle"), "mine") for name in ("ended", "idle"))
    assert ended is not None
    assert idle is not None
    assert (ended.sequence, ended.error().reason, idle.error().reason) == (2, "EPISODE_FINISHED", "EPISODE_IDLE")


def test_new_episodes_begin_in_the_initial_state_whatever_the_slot_held() -> None:
    table = table_of()
    slot = table.open_episode(table.client("mine"), "a", training=True, now_s=0.0)
    table.state[0][slot] = 9.0
    (state,) = table.states(np.array([slot, slot]), np.array([True, False]))
    assert state.tolist() == [[0.5, 0.5], [9.0, 9.0]]


def test_generations_survive_a_trim_so_that_old_handles_stay_dead() -> None:
    table = table_of()
    client = table.client("mine")
    old = play(table, client, "a")
    table.trim()
    slot = table.open_episode(client, "b", training=True, now_s=0.0)
    assert table.handle(slot) != old
    assert (table.next_sequence[slot], table.open) == (0, 1)
