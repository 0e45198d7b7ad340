"""Episodes that end in the same seconds are compared with the baselines together, by the time that the run has ended at the latest."""

from __future__ import annotations

import time

import pytest

from policyserver.pipelines.config import PipelineConfig, PlayedEpisodesConfig
from policyserver.pipelines.nodes import episode_node
from policyserver.pipelines.nodes.episode_node import EpisodeNode
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.prices.config import PricesConfig
from tests.pipelines.pipeline_harness import Book
from tests.pipelines.policy_double import PolicyDouble

SHORT = PricesConfig(bars_per_episode=5, warmup_bars=40)
WAIT_S = 60.0


def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note of how many episodes each comparison is."""
    counts: list[int] = []
    compare = EpisodeNode._compare

    def noted(self: EpisodeNode) -> None:
        counts.append(len(self._uncompared))
        compare(self)

    monkeypatch.setattr(EpisodeNode, "_compare", noted)
    return counts


def test_all_episodes_of_a_short_run_are_compared_once_before_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episode_node, "_COMPARE_S", 1e6)  # however long they take
    counts = compared(monkeypatch)
    config = PipelineConfig(prices=SHORT, episodes=PlayedEpisodesConfig(concurrent=4, count=12))
    book = Book()
    pipeline = Pipeline(config, PolicyDouble(), book)
    pipeline.start()
    assert pipeline.wait(WAIT_S)
    assert pipeline.run.episodes.count == 12
    pipeline.stop()
    assert counts == [12]
    assert len(book.rows["episode"]) == 12


def test_episodes_do_not_wait_for_others_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a live row, whose next episode ends hours later."""
    monkeypatch.setattr(episode_node, "_COMPARE_S", 0.05)
    config = PipelineConfig(prices=SHORT, episodes=PlayedEpisodesConfig(concurrent=1, count=2))
    service = PolicyDouble()
    pipeline = Pipeline(config, service, Book())
    answer = service.get_actions
    meanwhile: list[int] = []

    def slow_from_the_second_episode(episode_ids: list[str], observations: object) -> object:
        if pipeline.run.steps >= 5 and not meanwhile:
            deadline_s = time.monotonic() + WAIT_S
            while pipeline.run.episodes.count == 0 and time.monotonic() < deadline_s:
                time.sleep(0.005)
            meanwhile.append(pipeline.run.episodes.count)
        return answer(episode_ids, observations)

    service.get_actions = slow_from_the_second_episode  # type: ignore[method-assign,assignment]
    pipeline.start()
    assert pipeline.wait(2 * WAIT_S)
    assert meanwhile == [1], "the first was compared while the second was played"
    pipeline.stop()
    assert pipeline.run.episodes.count == 2
