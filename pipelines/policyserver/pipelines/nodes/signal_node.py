"""Learns the last log-returns, forecasts the next, builds the observations, and sees which episodes are over."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from policyserver.monitoring.points import Points
from policyserver.pipelines.events import Ended, EndEvent, Ending, RewardEvent, SignalEvent
from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.block import DATA_END, GOES_ON
from policyserver.pipelines.nodes.pipeline_node import PipelineNode, Wiring
from policyserver.pipelines.played_block import PlayedBlock
from policyserver.pipelines.replay.turn import NOTHING
from policyserver.pipelines.runtime.inbox import push_together

_REPORT_FORECASTS = 1000
"""Forecasts of one block from one `regressor` point to the next."""


class SignalNode(PipelineNode[RewardEvent]):
    """Works the forecasters of its blocks: each belongs to its block, and no other thread touches it."""

    is_lent = True

    def __init__(self, name: str, wiring: Wiring, skipped: Callable[[], int]) -> None:
        """Make the node; see `Node`. `skipped` counts the labels of the run that were not learnt, because they were not finite."""
        super().__init__(name, wiring)
        self._skipped = skipped
        self._skills: dict[int, _Skill] = {}

    def _process(self, batch: list[RewardEvent]) -> None:
        signals: list[SignalEvent] = []
        ends: list[EndEvent] = []
        for event in batch:
            if event.played.abandoned:
                continue
            ended, asking = self._observe(event)
            if self._run_state.stopping.is_set():
                playing = event.played.playing
                ended = [*ended, *ended_episodes(event.played, playing, "truncated", "stopped")]
                ends.append(EndEvent(tuple(ended), event.played.block.shape.n_rows))
                event.played.vacate(playing)
                event.played.turn.asked, event.played.turn.stopped = NOTHING, (playing,)
                self._turns.add(event.played.turn)
                continue
            if ended:
                ends.append(EndEvent(tuple(ended)))
            signals.append(SignalEvent(event.played, asking))
        if not ends:
            self._routes.policy.push_many(signals)
            return
        push_together([*self._routes.policy.shares(signals), *self._routes.episode.shares(ends)])

    def _observe(self, event: RewardEvent) -> tuple[list[Ended], IntArray]:
        """Forecast and observe; return the episodes that are over, whose rows are vacant now, and the rows that want an action."""
        played, rows = event.played, event.rows
        block = played.block
        if event.marked is not None:
            self._score(played, *played.forecaster.learn(rows))
        playing = played.playing
        if not len(playing):
            return [], playing
        played.forecaster.predict(playing)
        is_over = event.marked is not None and event.marked.ends.any()
        over = event.marked.ends != GOES_ON if event.marked is not None and is_over else np.zeros(len(rows), dtype=np.bool_)
        seeing = playing
        if played.has_frames and not (asks := played.asks[playing]).all():
            asks |= np.isin(playing, rows[over]) | self._run_state.stopping.is_set()
            seeing = playing[asks]
        observations = played.take_observations(seeing, block.observe(seeing)) if len(seeing) else None
        if event.marked is None or not is_over:
            if observations is not None:
                played.turn.asked = seeing, block.view.forecast.take(seeing, axis=0), observations
            return [], seeing
        ended = []
        for row, end in zip(rows[over].tolist(), event.marked.ends[over].tolist(), strict=True):
            reason = "data" if end == DATA_END else block.rules.end_names[end - 1]
            ending: Ending = "terminated" if block.terminates(np.array([end]))[0] else "truncated"
            ended += ended_episodes(played, np.array([row]), ending, reason)
        played.vacate(rows[over])
        seeing = seeing[~np.isin(seeing, rows[over])]
        if len(seeing):
            played.turn.asked = seeing, block.view.forecast[seeing], played.observations[seeing]
        return ended, seeing

    def _score(self, played: PlayedBlock, squared_errors: FloatArray, squared_returns: FloatArray) -> None:
        """Keep how good the forecasts were that can be judged now."""
        if not len(squared_errors):
            return
        self._run_state.forecasts.extend_columns(squared_errors, squared_returns)
        skill = self._skills.get(played.number)
        if skill is None:
            skill = self._skills[played.number] = _Skill()
        skill.add(squared_errors, squared_returns)
        if skill.forecasts >= _REPORT_FORECASTS:
            self._recorder.sink.write(Points.one("regressor", self._recorder.tags, skill.fields() | {"skipped": self._skipped()}))
            del self._skills[played.number]


class _Skill:
    """How good some forecasts were, beside the zero forecast."""

    def __init__(self) -> None:
        self.forecasts = 0
        self._squares: list[tuple[FloatArray, FloatArray]] = []

    def add(self, squared_errors: FloatArray, squared_returns: FloatArray) -> None:
        """Add forecasts."""
        self.forecasts += len(squared_errors)
        self._squares.append((squared_errors, squared_returns))

    def fields(self) -> dict[str, float | int | None]:
        """Return the fields of a point."""
        squared_errors, squared_returns = (sum(float(part[place].sum()) for part in self._squares) for place in (0, 1))
        mse, mse_zero = squared_errors / self.forecasts, squared_returns / self.forecasts
        skill = 1.0 - mse / mse_zero if mse_zero > 0 else None
        return {"forecasts": self.forecasts, "mse": mse, "mse_zero": mse_zero, "skill": skill}


def ended_episodes(played: PlayedBlock, rows: IntArray, ending: Ending, reason: str) -> list[Ended]:
    """Return what is to be told and recorded of episodes that are over, apart from the block; their rows are still to be vacated."""
    accounts = played.block.view.accounts
    initial = accounts.initial_equity[rows]
    costs, turnover = accounts.costs[rows] / initial, accounts.turnover[rows] / initial
    profit, drawdown = accounts.profit[rows], accounts.drawdown[rows]
    ended = []
    for place, row in enumerate(rows.tolist()):
        episode = played.episodes[row]
        if episode is not None:
            ended.append(
                Ended(
                    episode,
                    played.ids[row],
                    played.symbols[row],
                    ending,
                    reason,
                    bool(played.is_started[row]),
                    played.observations[row].copy(),
                    played.unreported.pop(row, []),
                    played.taken.of(row),
                    played.taken.kinds_of(row),
                    int(played.steps[row]),
                    float(played.returns[row]),
                    float(profit[place]),
                    float(costs[place]),
                    float(turnover[place]),
                    float(drawdown[place]),
                )
            )
    return ended
