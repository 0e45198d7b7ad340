"""Forecasts the next log-return, learns the last one, and builds the observation."""

from __future__ import annotations

from policyserver.monitoring.points import Points
from policyserver.pipelines.events import EndEvent, Episode, RewardEvent, SignalEvent
from policyserver.pipelines.forecast.regressor import NO_PREDICTION, RegressorConfig
from policyserver.pipelines.forecasters import Forecaster, forecaster_of
from policyserver.pipelines.run_state import RunState
from policyserver.pipelines.runtime.inbox import NodeConfig, push_together
from policyserver.pipelines.runtime.node import Node, Supervisor
from policyserver.pipelines.runtime.routes import Recorder, Routes

_REPORT_FORECASTS = 1000
"""Forecasts of one symbol from one `regressor` point to the next."""


class _Model:
    """The forecaster of one symbol, and the skill of its forecasts since the last report."""

    __slots__ = ("forecaster", "forecasts", "squared_errors", "squared_returns")

    def __init__(self, forecaster: Forecaster) -> None:
        self.forecaster = forecaster
        self.forget()

    def forget(self) -> None:
        """Begin a new report."""
        self.forecasts = 0
        self.squared_errors = 0.0
        self.squared_returns = 0.0


class SignalNode(Node[RewardEvent]):
    """Owns the regressors of its symbols: no other thread touches them, and all episodes of a symbol share one; see `forecasters`."""

    def __init__(
        self,
        name: str,
        options: NodeConfig,
        supervisor: Supervisor,
        routes: Routes,
        run: RunState,
        recorder: Recorder,
        config: RegressorConfig,
        *,
        show_prediction: bool,
    ) -> None:
        """Make the node; see `Node`.

        Args:
            name: Name of the node and its thread.
            options: Inbox and restarts.
            supervisor: Told of failures.
            routes: Where events go.
            run: Shared state.
            recorder: Where points go.
            config: Of the regressors.
            show_prediction: Whether observations have the forecast in them, or zeros in its place.
        """
        super().__init__(name, options, supervisor=supervisor)
        self._routes = routes
        self._run_state = run
        self._recorder = recorder
        self._config = config
        self._show_prediction = show_prediction
        self._models: dict[str, _Model] = {}

    def _process(self, batch: list[RewardEvent]) -> None:
        signals: list[SignalEvent] = []
        ends: list[EndEvent] = []
        forecasts: list[tuple[float, float]] = []
        stopping = self._run_state.stopping.is_set
        for event in batch:
            episode = event.episode
            if episode.abandoned:
                continue
            features, bar = episode.features, event.bar
            features.update(bar)
            model = self._model(episode)
            if bar.index > 0:
                counts = model.forecaster.settle(episode, bar)
                score = self._score(model, episode.prediction.mean, features.last_return)
                if counts:
                    forecasts.append(score)
                if model.forecasts >= _REPORT_FORECASTS:
                    self._report(episode.symbol, model)
            episode.prediction = prediction = model.forecaster.forecast(episode, bar)
            left = 1.0 - bar.index / episode.prices.n_steps
            shown = prediction if self._show_prediction else NO_PREDICTION
            episode.observation = observation = features.observation(shown, episode.account, left)
            if episode.account.ruined:
                ends.append(EndEvent(episode, "terminated"))
            elif episode.truncated or stopping() or bar.index >= episode.prices.n_steps:
                ends.append(EndEvent(episode, "truncated"))
            else:
                signals.append(SignalEvent(episode, bar, prediction, observation))
        self._run_state.forecasts.extend(forecasts)
        push_together([*self._routes.policy.shares(signals), *self._routes.episode.shares(ends)])

    def _model(self, episode: Episode) -> _Model:
        """Return the model of an episode's symbol; it lives as long as the node, through restarts too."""
        model = self._models.get(episode.symbol)
        if model is None:
            forecaster = forecaster_of(episode, self._config, self._run_state.stopping.is_set)
            model = self._models[episode.symbol] = _Model(forecaster)
        return model

    @staticmethod
    def _score(model: _Model, forecast: float, log_return: float) -> tuple[float, float]:
        """Return the squared errors of a forecast and of the zero forecast, and add them to the symbol's report."""
        error = log_return - forecast
        squared_error, squared_return = error * error, log_return * log_return
        model.forecasts += 1
        model.squared_errors += squared_error
        model.squared_returns += squared_return
        return squared_error, squared_return

    def _report(self, symbol: str, model: _Model) -> None:
        """Write the skill of a symbol's newest forecasts."""
        mse, mse_zero = model.squared_errors / model.forecasts, model.squared_returns / model.forecasts
        fields = {
            "forecasts": model.forecasts,
            "mse": mse,
            "mse_zero": mse_zero,
            "skill": 1.0 - mse / mse_zero if mse_zero > 0 else None,
            "skipped": model.forecaster.skipped,
        }
        self._recorder.sink.write(Points.one("regressor", {**self._recorder.tags, "symbol": symbol}, fields))
        model.forget()
