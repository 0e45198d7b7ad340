// The table of the newest decisions.

import { short, stamp, whole } from "./format.js";
import { actions } from "./panels.js";

const body = document.getElementById("decisions");
let newest = 0;

export function showDecisions(rows) {
  const before = newest;
  const someStayed = rows.some((row) => row.id <= before); // when all rows are new, none stands out
  newest = rows[0]?.id ?? 0;
  body.replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr");
    if (someStayed && row.id > before) line.className = "fresh";
    for (const [text, className] of cells(row)) {
      const cell = line.insertCell();
      cell.textContent = text;
      cell.className = className;
    }
    return line;
  }));
}

export function forgetDecisions() {
  newest = 0;
}

function cells(row) {
  const name = actions[row.action] ?? "";
  const action = name || (row.action_text ?? "–");
  const outcome = row.reward > 0 ? "gain" : row.reward < 0 ? "loss" : "";
  return [
    [stamp(row.time_ns / 1e9), ""],
    [row.episode ?? "–", "episode"],
    [row.symbol, ""],
    [whole(row.bar), "number"],
    [short(row.price), "number"],
    [row.prediction == null ? "–" : row.prediction.toFixed(5), "number"],
    [row.fallback ? `${action} (fallback)` : action, name],
    [short(row.position), "number"],
    [whole(row.equity), "number"],
    [row.reward == null ? "–" : row.reward.toFixed(4), `number ${outcome}`],
    [whole(row.weights_seq_no), "number"],
  ];
}
