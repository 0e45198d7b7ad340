"""`make learn`: the demo's problem for three seeds, controls and a scale beside, other markets, a table and a picture of what came of it.

The controls: the same without the regressor's forecast in the observation, and geometric Brownian motion without drift, where no policy
can earn anything, though it may save costs. The scale: what a rule of one line and the optimum earn on the same episodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from benchmarks.charts import Curve
from benchmarks.market.page import made_by, pair, row, write_part
from benchmarks.market.picture import learning_curve, picture
from benchmarks.market.scale import Scale, scale_of, t_over_random, where_the_policy_stands, whether_the_forecast_helps
from benchmarks.market.settings_part import settings_of
from policyserver.pipelines.demo.demo import DemoResult, run_demo
from policyserver.pipelines.demo.setup import DEFAULT_STEPS, DemoConfig
from policyserver.pipelines.runtime.stop_signals import StopSignals

SEEDS = (0, 1, 2)
TITLE = "# What the demo learns"


@dataclass(frozen=True, slots=True)
class Variant:
    """A problem to learn."""

    title: str
    """What it is called in the table and the picture."""
    market: str
    """Shipped set-up of the demo that it is played on."""
    show_prediction: bool = True
    """Whether the policy sees the forecast."""
    has_scale: bool = True
    """Whether the rule and the optimum know its law."""


VARIANTS = (
    Variant("OU", "ou"),
    Variant("OU, forecast hidden", "ou", show_prediction=False),
    Variant("GBM without drift", "gbm"),
    Variant("OU or Heston, drawn for each episode", "heston-mixture", has_scale=False),
    Variant("Portfolio of 5", "portfolio", has_scale=False),
)


def run_variants(folder: Path, steps: int | None, out: TextIO, stop: StopSignals) -> None:
    """Run every variant for every seed; write learning.md and learning.svg into `folder`.

    Args:
        folder: Where they go.
        steps: Steps of each run; None takes the demo's.
        out: Where the runs are shown.
        stop: Ends the run at hand, and with it the rest; nothing is written then.
    """
    results: dict[tuple[Variant, int], DemoResult] = {}
    for variant in VARIANTS:
        for seed in SEEDS:
            out.write(f"\n{variant.title}, seed {seed} ({len(results) + 1} of {len(VARIANTS) * len(SEEDS)})\n")
            options = DemoConfig(seed=seed, market=variant.market, show_prediction=variant.show_prediction, steps=steps or DEFAULT_STEPS)
            result = run_demo(options, out, stop)
            if result.interrupted:
                out.write("interrupted: nothing is written\n")
                return
            results[variant, seed] = result
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "learning.svg").write_text(picture({variant.title: _curves(variant, results) for variant in VARIANTS}), encoding="utf-8")
    write_part(folder, TITLE, _part(results, steps))
    out.write(f"wrote {folder / 'learning.md'} and {folder / 'learning.svg'}\n")


def _curves(variant: Variant, results: dict[tuple[Variant, int], DemoResult]) -> list[Curve]:
    """Return a curve for each seed, and the baselines of the first."""
    return [
        *(learning_curve(f"policy, seed {seed}", results[variant, seed], "mean") for seed in SEEDS),
        learning_curve("random", results[variant, SEEDS[0]], "random"),
        learning_curve("no trade", results[variant, SEEDS[0]], "no_trade"),
    ]


def _part(results: dict[tuple[Variant, int], DemoResult], steps: int | None) -> str:
    """Return the table as Markdown."""
    command = "make learn" + (f' ARGS="--steps {steps}"' if steps else "")
    head = ("prices", "seed", "steps", "seconds", "steps/s", "policy", "rule", "optimum", "no trade", "random", "t over random")
    scales = {key: scale_of(result) for key, result in results.items() if key[0].has_scale}
    lines = [
        TITLE,
        "",
        f"Made by `{command}` ({made_by()}). Mean ± standard error over the last tenth of the episodes; the regressor's skill,",
        "1 - MSE / MSE of the zero forecast, over the last tenth of the steps. Returns are in units of reward: 100 times the log-equity",
        "gained. Profit and costs are fractions of the initial equity; in a fair game (GBM without drift) their sum is 0 for everybody.",
        "",
        "The scale, on the same episodes and with the same costs: the rule is short where the log-price is above its running mean by more",
        "than one volatility, long where it is below by as much, and keeps its position in between. The optimum knows the law and the",
        "parameters of each episode; it is found by dynamic programming over the deviation from the mean, the position and the bars left.",
        "In a fair game it holds cash. t is that of the paired differences from random actions on the same episodes.",
        "",
        "![Mean return over the course of training](learning.svg)",
        "",
        row([*head, "profit + costs", "of random", "skill", "dropped", "staleness"]),
        row(["---"] * (len(head) + 5)),
        *(row(_cells(variant, seed, result, scales.get((variant, seed)))) for (variant, seed), result in results.items()),
        "",
        *_findings(results, scales),
        "",
        *settings_of(next(iter(results.values())).folder),
    ]
    return "\n".join(lines) + "\n"


def _findings(results: dict[tuple[Variant, int], DemoResult], scales: dict[tuple[Variant, int], Scale]) -> list[str]:
    """Return in words where the policy stands, and whether the forecast helps it."""
    shown, hidden = (variant for variant in VARIANTS if variant.market == "ou")
    returns = {variant: [results[variant, seed].summary.return_mean for seed in SEEDS] for variant in (shown, hidden)}
    stands = [where_the_policy_stands(v.title, returns[v], [scales[v, seed] for seed in SEEDS]) for v in (shown, hidden)]
    return [*stands, "", whether_the_forecast_helps(returns[shown], returns[hidden])]


def _cells(variant: Variant, seed: int, result: DemoResult, scale: Scale | None) -> list[str]:
    """Return one run's row of the table."""
    s = result.summary
    return [
        variant.title,
        str(seed),
        f"{s.steps:,}",
        f"{s.seconds:.0f}",
        f"{s.steps_per_s:,.0f}",
        pair(s.return_mean, s.return_stderr),
        *(scale.cells() if scale else ("-", "-")),
        pair(s.no_trade_mean, s.no_trade_stderr),
        pair(s.random_mean, s.random_stderr),
        f"{t_over_random(result):.1f}",
        pair(s.profit_mean + s.costs_mean, s.profit_plus_costs_stderr, 4),
        pair(s.random_profit_mean + s.random_costs_mean, s.random_profit_plus_costs_stderr, 4),
        pair(s.regressor_skill, s.regressor_skill_stderr, 4),
        f"{s.steps_dropped / max(s.steps, 1):.1%}",
        f"{s.staleness_mean:.2f}",
    ]
