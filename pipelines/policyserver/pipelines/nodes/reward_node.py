"""Marks the accounts at the close, and says what the actions were worth: to the server, to the ledger, to the sink."""

from __future__ import annotations

from policyserver.pipelines.events import Decision, FillEvent, RewardEvent
from policyserver.pipelines.nodes.pipeline_node import PipelineNode, Wiring
from policyserver.pipelines.run_state import ExactSum, ShownDecision

_Row = tuple[FillEvent, Decision, float]

_SHOWN_PER_BATCH = 3
"""Decisions of a batch that are shown, so that those of several threads are seen together."""


class RewardNode(PipelineNode[FillEvent]):
    """Computes each action's reward one bar after it."""

    def __init__(self, name: str, wiring: Wiring) -> None:
        """Make the node; see `Node`."""
        super().__init__(name, wiring)
        self.ledger = ExactSum()
        """All rewards that this node has logged with the server."""

    def _process(self, batch: list[FillEvent]) -> None:
        truncated = self._run_state.stopping.is_set()
        events: list[RewardEvent] = []
        rows: list[_Row] = []
        for event in batch:
            episode = event.episode
            if episode.abandoned:
                continue
            reward = episode.account.mark(event.bar.close)
            decision = episode.decision
            if decision is not None:
                episode.steps += 1
                episode.return_sum += reward
                rows.append((event, decision, reward))
                if episode.unreported:
                    episode.unreported[-1].reward = reward  # the server hears of it after the action
            episode.truncated = truncated
            events.append(RewardEvent(episode, event.bar, reward))
        if rows:
            self._log(rows)
        self._routes.signal.push_many(events)

    def _log(self, rows: list[_Row]) -> None:
        """Log the rewards of a batch everywhere."""
        told = [(event.episode.id, reward) for event, _, reward in rows if not event.episode.unreported]
        self._policy.log_returns_batch([episode_id for episode_id, _ in told], [reward for _, reward in told])
        for _, reward in told:
            self.ledger.add(reward)
        self._record(rows)
        self._run_state.add_steps(len(rows))
        self._run_state.decisions.extend(
            ShownDecision(decision, event.episode.id, event.episode.symbol, event.episode.account.exposure, reward)
            for event, decision, reward in rows[:_SHOWN_PER_BATCH]
        )

    def _record(self, rows: list[_Row]) -> None:
        """Write the steps of a batch."""
        self._recorder.write(
            "step",
            {
                "episode": [event.episode.id for event, _, _ in rows],
                "bar": [decision.bar for _, decision, _ in rows],
                "price": [decision.price for _, decision, _ in rows],
                "prediction": [decision.prediction.mean for _, decision, _ in rows],
                "prediction_std": [decision.prediction.std for _, decision, _ in rows],
                "action": [decision.action for _, decision, _ in rows],
                "position": [event.episode.account.position for event, _, _ in rows],
                "equity": [event.episode.account.equity for event, _, _ in rows],
                "reward": [reward for _, _, reward in rows],
                "fee": [event.fill.fee if event.fill else 0.0 for event, _, _ in rows],
                "slippage": [event.fill.slippage if event.fill else 0.0 for event, _, _ in rows],
                "fallback": [decision.fallback for _, decision, _ in rows],
                "weights_seq_no": [decision.weights_seq_no for _, decision, _ in rows],
            },
            symbol=[event.episode.symbol for event, _, _ in rows],
        )
