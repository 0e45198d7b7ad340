// Builds the page and follows the server's events: each names a section of the page and carries its changes.

import { Chart } from "./chart.js";
import { merged } from "./columns.js";
import { forgetDecisions, showDecisions } from "./decisions.js";
import { onChoice, query, showChoices } from "./filters.js";
import { moment } from "./format.js";
import { panels } from "./panels.js";
import { clearTiles, tell } from "./tiles.js";

const RETRY_MS = 2000;
const drawn = panels.map((panel, number) => ({ ...panel, charts: build(panel, number) }));
const columns = {};
const span = { begin: Infinity, end: -Infinity };
let source = null;

function build({ title, note, wide, charts }, number) {
  const section = document.createElement("section");
  section.className = wide ? "wide" : "";
  const heading = document.createElement("h2");
  heading.textContent = title;
  heading.id = `panel-${number}`;
  section.setAttribute("aria-labelledby", heading.id);
  section.append(heading);
  if (note) section.append(Object.assign(document.createElement("p"), { className: "note", textContent: note }));
  const box = document.createElement("div");
  box.className = charts.length > 1 ? "charts" : "";
  section.append(box);
  document.getElementById("decisions-panel").before(section);
  return charts.map((description) => new Chart(description, box));
}

function take(name, data) {
  columns[name] = merged(columns[name], data);
  const times = columns[name].time_s;
  if (times?.length) {
    span.begin = data.begin_s;
    span.end = Math.max(span.end, times.at(-1));
  }
  tell[name]?.(columns[name]);
  for (const panel of drawn) {
    if (panel.data !== name) continue;
    for (const chart of panel.charts) chart.set(columns[name], span);
  }
}

// Breaks the lines: of what pipelines record, where no pipeline recorded; of the others, where there was no serving process.
function mark({ restarts, checkpoints, gaps }) {
  for (const { gapsOf, charts } of drawn) for (const chart of charts) chart.mark({ restarts, checkpoints, gaps: gaps[gapsOf] ?? [] });
}

const STATES = {
  live: () => "live",
  silent: (since) => `no points since ${moment(since)}`,
  empty: () => "no points yet",
  unknown: () => "no such run",
};

function showState({ state, newest_s: since }) {
  connection(state, STATES[state](since));
  if (state === "live" || state === "silent") return;
  clearTiles();
  showDecisions([]);
  for (const { charts } of drawn) for (const chart of charts) chart.clear();
}

const sections = {
  choices(data) {
    document.title = data.run ? `${data.run} · Policy server` : "Policy server";
    showChoices(data);
    document.getElementById("run-note").textContent = data.note;
  },
  state: showState,
  marks: mark,
  decisions: showDecisions,
  server: tell.server,
  train: tell.train,
};
for (const { data } of panels) sections[data] ??= (changes) => take(data, changes);

function connection(state, text) {
  const element = document.getElementById("connection");
  element.className = state;
  element.querySelector(".text").textContent = text;
}

function follow() {
  source?.close();
  const followed = new EventSource(`/events${query()}`);
  source = followed;
  for (const name of Object.keys(columns)) delete columns[name];
  span.end = -Infinity;
  clearTiles();
  forgetDecisions();
  followed.onopen = () => connection("open", "connected");
  followed.onerror = () => {
    connection("lost", "connection lost, trying again");
    if (followed.readyState === EventSource.CLOSED) setTimeout(() => followed === source && follow(), RETRY_MS);
  };
  for (const [name, show] of Object.entries(sections)) {
    followed.addEventListener(name, (event) => show(JSON.parse(event.data)));
  }
}

const colours = document.getElementById("theme");
const showColours = () => { colours.value = theme.chosen(); };
showColours();
document.addEventListener("theme", showColours);
colours.addEventListener("change", () => theme.choose(colours.value));
onChoice(follow);
follow();
