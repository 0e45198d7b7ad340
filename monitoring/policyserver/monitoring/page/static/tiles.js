// The figures at the top of the page.

import { newest } from "./columns.js";
import { duration, short, whole } from "./format.js";

const TILES = ["Mean return, newest tenth", "Steps", "Episodes finished", "Actions per second", "Action latency, half", "Policy version", "Training iteration"];

const boxes = new Map(TILES.map((name) => {
  const box = document.createElement("div");
  const term = document.createElement("dt");
  term.textContent = name;
  box.append(term, document.createElement("dd"));
  document.getElementById("tiles").append(box);
  return [name, box.lastChild];
}));

function tile(name, value = "–", detail = "") {
  const small = document.createElement("small");
  small.textContent = detail;
  boxes.get(name).replaceChildren(value, small);
}

export function clearTiles() {
  for (const name of TILES) tile(name);
}

// Shows a section's figures in the tiles.
export const tell = {
  episodes(columns) {
    const mean = (name) => short(newest(columns[name]));
    const known = ["random", "no_trade"].filter((name) => newest(columns[name]) != null);
    const baselines = known.map((name) => ` ${name.replace("_", "-")} ${mean(name)}`).join(",");
    tile("Mean return, newest tenth", mean("policy"), `reward${baselines && `;${baselines}`}`);
  },
  pipeline(columns) {
    tile("Action latency, half", duration(newest(columns.latency_p50_s)), `99 %: ${duration(newest(columns.latency_p99_s))}`);
  },
  server([row]) {
    if (!row) return;
    tile("Actions per second", short(row.actions_per_s), `${short(row.batch_size)} in a batch`);
    tile("Steps", whole(row.steps_completed), `${whole(row.steps_dropped)} dropped, ${whole(row.steps_waiting)} wait`);
    tile("Episodes finished", whole(row.episodes_finished), `${whole(row.episodes_open)} open`);
    tile("Policy version", whole(row.weights_seq_no), `acted ${short(row.staleness_mean)} behind`);
  },
  train([row]) {
    if (row) tile("Training iteration", whole(row.iteration), `${whole(row.steps_total)} steps trained`);
  },
};

clearTiles();
