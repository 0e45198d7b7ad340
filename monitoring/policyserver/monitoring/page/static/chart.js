// One chart. While it can be seen, it draws itself when its columns, its width or the colours change.

import { alone, breaks, newest } from "./columns.js";
import { axisTimes, formats, moment } from "./format.js";
import { drawMarks } from "./marks.js";

const LIGHT_FILL = "2b"; // of 255, after a colour's six digits
const LEAST_SPAN_S = 10;
const charts = new Set();

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export class Chart {
  // A description comes from page/sections.py: id, title, format, series, bands, and optionally axis, tall and stack.
  constructor(description, parent) {
    Object.assign(this, description, { format: formats[description.format] });
    this.byTime = this.axis !== "bar";
    this.columns = null;
    this.data = null;
    this.plot = null;
    this.stale = false;
    this.visible = false;
    this.element = document.createElement("div");
    this.element.id = this.id;
    this.element.className = `chart empty${this.tall ? " tall" : ""}`;
    this.element.tabIndex = 0;
    this.element.setAttribute("role", "group");
    this.head = document.createElement("p");
    this.head.className = "head";
    this.head.append(this.title);
    this.values = this.series.map((series) => this.key(series));
    this.when = document.createElement("time");
    this.head.append(this.when);
    this.marks = { restarts: [], checkpoints: [], gaps: [] };
    this.canvas = document.createElement("div");
    this.element.append(this.head, this.canvas);
    this.element.addEventListener("keydown", (event) => this.onKey(event));
    this.element.addEventListener("blur", () => this.plot?.setCursor({ left: -10, top: -10 }));
    parent.append(this.element);
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.element);
    seen.observe(this.element);
    charts.add(this);
    byElement.set(this.element, this);
  }

  key({ color: name, label }) {
    const key = document.createElement("span");
    const swatch = document.createElement("i");
    swatch.className = name;
    const value = document.createElement("b");
    key.append(swatch, label, " ", value);
    this.head.append(key);
    return value;
  }

  // Takes columns, and the first and last time that all charts show.
  set(columns, span) {
    this.columns = columns;
    this.span = span;
    const points = columns[this.byTime ? "time_s" : "bar"].length;
    this.element.classList.toggle("empty", !this.series.some(({ name }) => columns[name].some((value) => value != null)));
    this.element.dataset.points = points;
    this.stale = true;
    if (this.visible) requestDraw();
  }

  // Takes the marks of the time axis: restarts, checkpoints, and the gaps in which no line is drawn.
  mark(marks) {
    if (!this.byTime) return;
    this.marks = marks;
    this.stale = this.columns != null;
    if (this.visible && this.stale) requestDraw();
  }

  // Removes everything.
  clear() {
    this.plot?.destroy();
    this.plot = this.columns = this.data = null;
    this.stale = false;
    this.element.classList.add("empty");
    this.element.dataset.points = 0;
    this.values.forEach((value) => { value.textContent = ""; });
    this.when.textContent = "";
  }

  draw() {
    this.stale = false;
    const drawn = this.series.map(({ name }) => this.columns[name]);
    const times = this.columns[this.byTime ? "time_s" : "bar"];
    this.data = [times, ...(this.stack ? stacked(drawn) : drawn)];
    this.broken = this.data.map((values, index) => (index ? breaks(times, values, this.marks.gaps) : []));
    this.alone = this.data.map((values, index) => (index ? alone(values, this.broken[index]) : []));
    if (this.plot) this.plot.setData(this.data);
    else if (this.data[0].length > 0) this.build();
    this.label();
  }

  // Shows the values at the cursor and its place, or the newest values.
  label() {
    const at = this.plot?.cursor.idx;
    this.values.forEach((value, index) => {
      const column = this.columns[this.series[index].name];
      value.textContent = this.format(at == null ? newest(column) : column[at]);
    });
    this.when.textContent = at == null ? "" : this.byTime ? moment(this.data[0][at]) : `bar ${this.data[0][at]}`;
  }

  build() {
    this.plot?.destroy();
    const axis = { stroke: color("quiet"), grid: { stroke: color("grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const times = (_, ticks, __, ___, step) => axisTimes(ticks, step);
    const pixel = (plot, index) => Math.round(plot.valToPos(this.data[0][index], "x", true));
    const bars = (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick : ""));
    const place = (name) => this.series.findIndex((series) => series.name === name) + 1;
    const options = {
      ...this.size(),
      padding: [8, 12, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: this.byTime ? "time" : "bar" }, points: { size: 5 }, drag: { x: false, y: false } },
      hooks: { setCursor: [() => this.label()], draw: [(plot) => drawMarks(plot, this.marks, color("gray"))] },
      scales: {
        x: { time: this.byTime, range: () => (this.byTime ? this.timeRange() : [this.data[0][0], Math.max(this.data[0][0] + 1, this.data[0].at(-1))]) },
        y: { range: this.stack ? [0, 1] : (_, low, high) => (low === high ? around(low) : uPlot.rangeNum(low, high, 0.1, true)) },
      },
      axes: [
        { ...axis, space: 80, size: this.byTime ? 38 : 26, values: this.byTime ? times : bars },
        { ...axis, space: 28, size: 56, values: (_, ticks) => ticks.map(this.format) },
      ],
      series: [
        {},
        ...this.series.map((series) => ({
          stroke: color(series.color),
          fill: this.stack ? color(series.color) : undefined,
          width: series.width || 1.5,
          alpha: series.alpha || 1,
          dash: series.dash,
          gaps: (plot, index) => this.broken[index].map((ends) => ends.map((end) => pixel(plot, end))), // a missing value is no gap
          points: { show: true, size: 5, fill: color(series.color), filter: (_, index) => this.alone[index] },
        })),
      ],
      bands: this.stack
        ? this.series.slice(1).map((_, index) => ({ series: [index + 2, index + 1] }))
        : this.bands.map(([upper, lower, name]) => ({ series: [place(upper), place(lower)], fill: color(name) + LIGHT_FILL })),
    };
    this.plot = new uPlot(options, this.data, this.canvas);
  }

  // The range that all charts show; a single point would have no length.
  timeRange() {
    const begin = Math.min(this.span.begin, this.data[0][0]);
    return [begin, Math.max(this.span.end, this.data[0].at(-1), begin + LEAST_SPAN_S)];
  }

  // The arrow keys move the cursor from point to point, Escape takes it away.
  onKey(event) {
    if (!this.plot) return;
    const last = this.data[0].length - 1;
    const at = this.plot.cursor.idx ?? last + 1;
    const to = { ArrowLeft: Math.max(0, at - 1), ArrowRight: Math.min(last, at + 1), Home: 0, End: last }[event.key];
    if (to != null) this.plot.setCursor({ left: this.plot.valToPos(this.data[0][to], "x"), top: 10 });
    else if (event.key === "Escape") this.plot.setCursor({ left: -10, top: -10 });
    else return;
    event.preventDefault();
  }

  size() {
    return { width: this.element.clientWidth, height: this.element.clientHeight - this.head.offsetHeight };
  }
}

// A range for a curve that is flat.
function around(value) {
  return value === 0 ? [0, 1] : [value - Math.abs(value) / 10, value + Math.abs(value) / 10];
}

// Each column on top of the ones before.
function stacked(columns) {
  let below = columns[0].map(() => 0);
  return columns.map((column) => {
    below = column.map((value, index) => (value == null ? null : (below[index] ?? 0) + value));
    return below;
  });
}

const byElement = new WeakMap();
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const chart = byElement.get(target);
    chart.visible = isIntersecting;
    if (isIntersecting && chart.stale) requestDraw();
  }
}, { rootMargin: "200px" });

let requested = false;

// Draws all charts that changed and can be seen, once before the next painting.
function requestDraw() {
  if (requested) return;
  requested = true;
  requestAnimationFrame(() => {
    requested = false;
    for (const chart of charts) if (chart.stale && chart.visible) chart.draw();
  });
}

document.addEventListener("theme", () => {
  for (const chart of charts) if (chart.plot) chart.build();
});
