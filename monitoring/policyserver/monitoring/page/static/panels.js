// The page's charts by section: titles, and which columns of the server's data each draws.
//   series: [{name: column, label, color, width, alpha, dash}]    bands: [[upper column, lower column, color]], filled between
//   gapsOf: whose absence breaks the lines, that of pipelines or of serving processes
//   stack: areas on top of each other    axis: "bar" instead of time    format: of the values, `short` if not given

import { duration, percent } from "./format.js";

const line = (name, color, label = "", more = {}) => ({ name, color, label, ...more });

const quantiles = (name, color) => ({
  series: [
    line(`${name}_p95`, color, "95 %", { width: 0.75, alpha: 0.6 }),
    line(`${name}_p50`, color, "half", { width: 2 }),
    line(`${name}_p05`, color, "5 %", { width: 0.75, alpha: 0.6 }),
  ],
  bands: [[`${name}_p95`, `${name}_p05`, color]],
});

export const panels = [
  {
    title: "Return of finished episodes, in units of reward",
    note: "Of whole episodes. The band holds 5 to 95 of 100; means are over the newest tenth; no-trade and random act on the same prices and fees. Dashed line: a serving process began anew. Tick below: a checkpoint.",
    data: "episodes",
    gapsOf: "pipeline",
    wide: true,
    charts: [
      {
        id: "returns",
        title: "",
        tall: true,
        series: [
          line("return_p95", "blue", "95 %", { width: 0.75, alpha: 0.5 }),
          line("return_p05", "blue", "5 %", { width: 0.75, alpha: 0.5 }),
          line("return_p50", "blue", "half", { alpha: 0.7 }),
          line("policy", "blue", "policy, mean", { width: 2.5 }),
          line("random", "orange", "random"),
          line("no_trade", "gray", "no-trade", { dash: [6, 4] }),
        ],
        bands: [["return_p95", "return_p05", "blue"]],
      },
    ],
  },
  {
    title: "Running episodes",
    note: "At each bar: half of the episodes that are being played, and the bounds of 5 and 95 of 100 of them.",
    data: "running",
    charts: [
      { id: "reward", title: "Reward so far by bar, in units of reward", axis: "bar", ...quantiles("reward", "blue") },
      { id: "equity", title: "Equity, currency", axis: "bar", ...quantiles("equity", "green") },
      { id: "drawdown", title: "Drawdown", axis: "bar", format: percent, ...quantiles("drawdown", "red") },
      { id: "reached", title: "Episodes that reached the bar", axis: "bar", series: [line("episodes", "gray")] },
    ],
  },
  {
    title: "Actions",
    note: "Shares of all actions.",
    data: "steps",
    gapsOf: "pipeline",
    charts: [
      {
        id: "histogram",
        title: "",
        stack: true,
        format: percent,
        series: [line("sell", "red", "sell"), line("hold", "gray", "hold"), line("buy", "green", "buy")],
      },
      { id: "fallback", title: "Fallback actions", format: percent, series: [line("fallback", "orange")] },
      { id: "fee", title: "Fee of a step, currency", series: [line("fee", "violet")] },
      { id: "slippage", title: "Slippage of a step, currency", series: [line("slippage", "violet")] },
    ],
  },
  {
    title: "Money of finished episodes",
    note: "Means over the newest tenth of the whole episodes, in shares of the initial equity.",
    data: "episodes",
    gapsOf: "pipeline",
    charts: [
      { id: "profit", title: "Profit", format: percent, series: [line("profit", "green")] },
      { id: "costs", title: "Fees and slippage", format: percent, series: [line("costs", "violet")] },
      { id: "turnover", title: "Turnover, initial equities", series: [line("turnover", "blue")] },
      { id: "max-drawdown", title: "Largest drawdown", format: percent, series: [line("drawdown", "red")] },
    ],
  },
  {
    title: "Pipeline",
    data: "pipeline",
    gapsOf: "pipeline",
    charts: [
      {
        id: "latency",
        title: "An action takes",
        format: duration,
        series: [line("latency_p50", "blue", "half at most"), line("latency_p99", "orange", "99 % at most")],
      },
      {
        id: "nodes",
        title: "Waiting events",
        series: [
          line("waiting_market", "gray", "market"),
          line("waiting_execution", "orange", "execution"),
          line("waiting_reward", "green", "reward"),
          line("waiting_signal", "violet", "signal"),
          line("waiting_policy", "blue", "policy"),
          line("waiting_portfolio", "teal", "portfolio"),
          line("waiting_episode", "red", "episode"),
        ],
      },
      { id: "failures", title: "Nodes", series: [line("failures", "red", "failures"), line("restarts", "orange", "restarts")] },
      {
        id: "overflow",
        title: "Events and actions",
        series: [line("overflowed", "red", "met a full inbox"), line("fallbacks", "orange", "fallback actions")],
      },
    ],
  },
  {
    title: "Learner",
    data: "learner",
    gapsOf: "serving",
    charts: [
      { id: "loss", title: "Loss", series: [line("loss", "blue")] },
      { id: "kl", title: "KL divergence, nats", series: [line("kl", "violet")] },
      { id: "entropy", title: "Entropy, nats", series: [line("entropy", "green")] },
      { id: "learning-rate", title: "Learning rate", series: [line("learning_rate", "teal")] },
      { id: "version", title: "Policy version", series: [line("weights_seq_no", "blue")] },
      { id: "staleness", title: "Staleness, policy versions", series: [line("staleness_mean", "orange")] },
      { id: "trained", title: "Steps trained per second", series: [line("steps_per_s", "green")] },
      { id: "update", title: "An iteration's update takes", format: duration, series: [line("learn_seconds", "violet")] },
    ],
  },
  {
    title: "Serving",
    data: "serving",
    gapsOf: "serving",
    charts: [
      { id: "actions", title: "Actions per second", series: [line("actions_per_s", "blue")] },
      { id: "batch", title: "Actions of a batch", series: [line("batch_size", "green")] },
      { id: "open", title: "Open episodes", series: [line("episodes_open", "green")] },
      { id: "queue", title: "Steps that wait for the learner", series: [line("steps_waiting", "violet")] },
      { id: "dropped", title: "Lost", series: [line("steps_dropped", "red", "steps dropped"), line("rows_refused", "orange", "rows refused")] },
      { id: "behind", title: "Staleness at hand-off, policy versions", series: [line("staleness_mean", "orange")] },
    ],
  },
  {
    title: "Regressor",
    note: "Skill above 0 is better than forecasting zero. When returns grow or shrink, the market has drifted.",
    data: "regressor",
    gapsOf: "pipeline",
    charts: [
      { id: "skill", title: "Skill", series: [line("skill", "blue")] },
      { id: "drift", title: "Root mean square, log-return", series: [line("error", "orange", "error"), line("moves", "gray", "returns", { dash: [6, 4] })] },
      { id: "skipped", title: "Observations skipped", series: [line("skipped", "red")] },
    ],
  },
  {
    title: "Recording",
    note: "The sinks of the pipelines and of the policy server: the embedded store, and InfluxDB where there is one.",
    data: "sink",
    gapsOf: "serving",
    charts: [
      { id: "recorded", title: "Points per second", series: [line("accepted_per_s", "blue")] },
      { id: "backlog", title: "Points on their way", series: [line("backlog", "violet")] },
      { id: "lost", title: "Points", series: [line("dropped", "red", "dropped"), line("dead_lettered", "orange", "dead letters")] },
    ],
  },
];
