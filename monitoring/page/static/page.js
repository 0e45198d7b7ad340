"use strict";
// Follows the server's events: each names a section of the page and carries the section's whole data.

const byId = (id) => document.getElementById(id);

const returns = new TimeChart("returns", "", [
  { name: "policy_mean", label: "policy", color: "blue", width: 2.5 },
  { name: "mean", label: "policy, not smoothed", color: "blue", width: 1, alpha: 0.3 },
  { name: "random_mean", label: "random", color: "orange", width: 1.5 },
  { name: "no_trade_mean", label: "no-trade", color: "gray", width: 1.5, dash: [6, 4] },
]);
const learner = [
  new TimeChart("loss", "Loss", [{ name: "loss", label: "", color: "blue" }]),
  new TimeChart("kl", "KL divergence, nats", [{ name: "kl", label: "", color: "violet" }]),
  new TimeChart("entropy", "Entropy, nats", [{ name: "entropy", label: "", color: "green" }]),
  new TimeChart("version", "Policy version", [{ name: "weights_seq_no", label: "", color: "blue" }]),
];
const serving = [
  new TimeChart("actions", "Actions per second", [{ name: "actions_per_s", label: "", color: "blue" }]),
  new TimeChart("episodes", "Open episodes", [{ name: "episodes_open", label: "", color: "green" }]),
  new TimeChart("steps", "Steps", [
    { name: "steps_waiting", label: "waiting", color: "violet" },
    { name: "steps_dropped", label: "dropped", color: "red" },
  ]),
  new TimeChart("staleness", "Staleness, policy versions", [{ name: "staleness", label: "", color: "orange" }]),
];

const TILES = ["Mean return, newest tenth", "Steps", "Episodes finished", "Actions per second", "Policy version", "Training iteration"];
const tiles = new Map(TILES.map((name) => {
  const box = document.createElement("div");
  const term = document.createElement("dt");
  term.textContent = name;
  box.append(term, document.createElement("dd"));
  byId("tiles").append(box);
  return [name, box.lastChild];
}));
TILES.forEach((name) => tile(name, "–"));

function tile(name, value, detail = "") {
  const small = document.createElement("small");
  small.textContent = detail;
  tiles.get(name).replaceChildren(value, small);
}

const whole = (value) => (value == null ? "–" : Math.round(value).toLocaleString("en"));

function lastTenth(values, weights) {
  let left = weights.reduce((sum, weight) => sum + weight, 0) / 10;
  let sum = 0;
  let weight = 0;
  for (let index = values.length - 1; index >= 0 && left > 0; index--) {
    if (values[index] == null) continue;
    sum += values[index] * weights[index];
    weight += weights[index];
    left -= weights[index];
  }
  return weight > 0 ? sum / weight : null;
}

const show = {
  run({ run, runs }) {
    document.title = run ? `${run} · Policy server` : "Policy server";
    byId("run").replaceChildren(...runs.map((name) => new Option(name, name, false, name === run)));
  },

  returns(data) {
    const span = Math.max(1, Math.round(data.time_s.length / 20));
    for (const [to, from] of [["policy_mean", "mean"], ["random_mean", "random"], ["no_trade_mean", "no_trade"]]) {
      data[to] = runningMean(data[from], data.episodes, span);
    }
    returns.set(data);
    const random = short(lastTenth(data.random, data.episodes));
    const none = short(lastTenth(data.no_trade, data.episodes));
    tile("Mean return, newest tenth", short(lastTenth(data.mean, data.episodes)), `random ${random}, no-trade ${none}`);
  },

  learner(data) {
    for (const chart of learner) chart.set(data);
  },

  serving(data) {
    for (const chart of serving) chart.set(data);
    tile("Actions per second", short(data.actions_per_s.at(-1)), `${whole(data.steps_waiting.at(-1))} steps wait`);
  },

  server(newest) {
    if (!newest) return;
    tile("Steps", whole(newest.steps_completed), `${whole(newest.steps_dropped)} dropped`);
    tile("Episodes finished", whole(newest.episodes_finished), `${whole(newest.episodes_open)} open`);
    tile("Policy version", whole(newest.weights_seq_no), `acted ${short(newest.staleness_mean)} behind`);
  },

  train(newest) {
    if (!newest) return;
    tile("Training iteration", whole(newest.iteration), `${whole(newest.steps_total)} steps trained`);
  },

  decisions: showDecisions,
};

const ACTIONS = ["sell", "hold", "buy"];
let newestDecision = 0;

function showDecisions(rows) {
  const before = newestDecision;
  byId("decisions").replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr");
    if (before && row.id > before) line.className = "fresh";
    const cell = (text, className = "number") => {
      const cell = line.insertCell();
      cell.textContent = text;
      cell.className = className;
    };
    const action = ACTIONS[row.action] ?? "–";
    cell(clock(row.time_ns / 1e9, 1), "");
    cell(row.episode ?? "–", "episode");
    cell(row.symbol, "");
    cell(whole(row.bar));
    cell(short(row.price));
    cell(row.prediction == null ? "–" : row.prediction.toFixed(5));
    cell(row.fallback ? `${action} (fallback)` : action, action);
    cell(short(row.position));
    cell(whole(row.equity));
    cell(row.reward == null ? "–" : row.reward.toFixed(4), `number ${row.reward > 0 ? "gain" : row.reward < 0 ? "loss" : ""}`);
    cell(whole(row.weights_seq_no));
    newestDecision = Math.max(newestDecision, row.id);
    return line;
  }));
}

function connection(state, text) {
  const element = byId("connection");
  element.className = state;
  element.querySelector(".text").textContent = text;
}

const chosen = new URLSearchParams(location.search).get("run");
const source = new EventSource("/events" + (chosen ? `?run=${encodeURIComponent(chosen)}` : ""));
source.onopen = () => connection("live", "live");
source.onerror = () => connection("lost", "connection lost, trying again");
for (const [section, draw] of Object.entries(show)) {
  source.addEventListener(section, (event) => draw(JSON.parse(event.data)));
}
byId("run").addEventListener("change", (event) => {
  location.search = `?run=${encodeURIComponent(event.target.value)}`;
});
