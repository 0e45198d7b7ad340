"""Panels of what was earned: returns against the baselines, profit and costs."""

from __future__ import annotations

from functools import partial

from policyserver.monitoring.panels.panel import ChartPanel, Unit, figure
from policyserver.monitoring.panels.series import Series, asked, drawn, mean

_WHOLE = '("cut" = false OR "no_trade_return" <= 0 OR "no_trade_return" > 0)'
"""Condition of whole episodes: they were not cut, or in points of versions without that field have a baseline."""
_NEWEST = "Over the newest tenth of a pipeline's whole episodes, of all symbols; those that its end cut are left out."


def _result(field: str, label: str = "") -> Series:
    """Ask for a recorded mean over the newest tenth of a pipeline's whole episodes."""
    return asked("result", f'last("{field}")', label)


def _episodes(select: str, label: str = "", by: tuple[str, ...] = ("run",)) -> Series:
    """Ask about the whole episodes that ended in an interval."""
    return asked("episode", select, label, by=by, where=_WHOLE)


def _quantiles(name: str, title: str, color: str, unit: Unit = Unit.PLAIN) -> ChartPanel:
    """Return a chart of the quantiles of the running episodes."""
    bounds = {"width": 0.75, "alpha": 0.6}
    high, low = f"{name}_p95", f"{name}_p05"
    series = [drawn(high, color, "95 %", **bounds), drawn(f"{name}_p50", color, "half", width=2), drawn(low, color, "5 %", **bounds)]
    return ChartPanel(title, series, group="running", unit=unit, look={"axis": "bar"}, bands=[(high, low, color)])


_figure = partial(figure, dashboard="rewards")
_chart = partial(ChartPanel, dashboard="rewards")
_money = partial(ChartPanel, group="money")

PANELS = (
    _figure("Mean return", _result("return_mean"), _NEWEST),
    _figure("Mean return of no trade", _result("no_trade_mean"), "Holding nothing, on the same prices."),
    _figure("Mean return of random actions", _result("random_mean"), "On the same prices and fees."),
    _figure("Episodes", _episodes('count("return")'), "Whole ones that ended in the time range."),
    ChartPanel(
        "",
        [
            drawn("return_p95", "blue", "95 %", width=0.75, alpha=0.5),
            drawn("return_p05", "blue", "5 %", width=0.75, alpha=0.5),
            drawn("return_p50", "blue", "half", alpha=0.7),
            drawn("policy", "blue", "policy, mean", width=2.5),
            drawn("random", "orange", "random"),
            drawn("no_trade", "gray", "no-trade", dash=[6, 4]),
        ],
        look={"tall": True},
        bands=[("return_p95", "return_p05", "blue")],
        group="returns",
    ),
    _chart(
        "Return of an episode",
        [_episodes(f'percentile("return", {share})', f"{share} %") for share in (5, 50, 95)],
        "5, 50 and 95 of 100 whole episodes had at most this return.",
    ),
    _chart(
        "Return against the baselines",
        [_result("return_mean", "policy"), _result("no_trade_mean", "no trade"), _result("random_mean", "random")],
        f"{_NEWEST} The baselines act on the same prices and pay the same fees.",
    ),
    _chart(
        "Return by symbol", [_episodes('mean("return")', by=("run", "symbol"))], "Means of the whole episodes that ended in each interval."
    ),
    _chart("Reward of a step", [mean("step", "reward")], "Means."),
    _quantiles("reward", "Reward so far by bar, in units of reward", "blue"),
    _quantiles("equity", "Equity, currency", "green"),
    _quantiles("drawdown", "Drawdown", "red", Unit.SHARE),
    ChartPanel("Episodes that reached the bar", [drawn("episodes", "gray")], look={"axis": "bar"}, group="running"),
    _chart(
        "Profit and costs",
        [_result("profit_mean", "profit"), _result("costs_mean", "costs")],
        f"{_NEWEST} Shares of the initial equity. Costs are fees and slippage; the profit is what is left after them.",
        unit=Unit.SHARE,
    ),
    _money("Profit", [drawn("profit", "green")], unit=Unit.SHARE),
    _money("Fees and slippage", [drawn("costs", "violet")], unit=Unit.SHARE),
    _money("Turnover, initial equities", [drawn("turnover", "blue")]),
    _money("Largest drawdown", [drawn("drawdown", "red")], unit=Unit.SHARE),
    _chart("Length of an episode", [_episodes('mean("length")')], "Mean of the whole episodes that ended in each interval, in steps."),
)
