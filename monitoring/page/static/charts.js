"use strict";
// Charts over time. A chart is given columns of values by name and redraws itself when they, its width or the colours change.

const charts = [];

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function short(value) {
  if (value == null) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return (value / 1e6).toPrecision(4) + " M";
  if (size >= 1e4) return (value / 1e3).toPrecision(4) + " k";
  if (size >= 100 || value === 0) return String(Math.round(value * 10) / 10);
  return size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

function clock(seconds, step) {
  const time = new Date(seconds * 1000);
  if (step >= 86400) return time.toLocaleDateString(undefined, { month: "short", day: "numeric" });
  return time.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: step < 60 ? "2-digit" : undefined, hourCycle: "h23" });
}

class TimeChart {
  // series: [{name, label, color, width, alpha, dash}]; name is a column of the data.
  constructor(id, title, series) {
    this.element = document.getElementById(id);
    this.series = series;
    this.data = null;
    this.plot = null;
    this.head = document.createElement("p");
    this.head.className = "head";
    this.head.append(title);
    this.values = series.map((each) => {
      const key = document.createElement("span");
      const swatch = document.createElement("i");
      swatch.className = each.color;
      const value = document.createElement("b");
      key.append(swatch, each.label, " ", value);
      this.head.append(key);
      return value;
    });
    this.canvas = document.createElement("div");
    this.element.append(this.head, this.canvas);
    this.element.classList.add("empty");
    new ResizeObserver(() => this.plot && this.plot.setSize(this.size())).observe(this.element);
    charts.push(this);
  }

  set(columns) {
    this.data = [columns.time_s, ...this.series.map((series) => columns[series.name])];
    const points = columns.time_s.length;
    this.element.classList.toggle("empty", points === 0);
    this.element.dataset.points = points;
    if (this.plot) this.plot.setData(this.data);
    else if (points > 0) this.build();
    this.label();
  }

  // Writes the values under the cursor, or the newest ones.
  label() {
    const at = this.plot?.cursor.idx ?? this.data[0].length - 1;
    this.values.forEach((value, index) => {
      value.textContent = short(this.data[index + 1][at]);
    });
  }

  build() {
    if (this.plot) this.plot.destroy();
    const axis = { stroke: color("quiet"), grid: { stroke: color("grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const options = {
      ...this.size(),
      padding: [8, 12, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "time" }, points: { size: 5 } },
      hooks: { setCursor: [() => this.label()] },
      axes: [
        { ...axis, space: 80, size: 26, values: (_, ticks, __, ___, step) => ticks.map((tick) => clock(tick, step)) },
        { ...axis, space: 28, size: 52, values: (_, ticks) => ticks.map(short) },
      ],
      series: [
        {},
        ...this.series.map((series) => ({
          stroke: color(series.color),
          width: series.width || 1.5,
          alpha: series.alpha || 1,
          dash: series.dash,
          spanGaps: true,
          points: { show: false },
        })),
      ],
    };
    this.plot = new uPlot(options, this.data, this.canvas);
  }

  size() {
    return { width: this.element.clientWidth, height: this.element.clientHeight - this.head.offsetHeight };
  }
}

// Running mean over the newest `span` buckets, each weighted by what it holds.
function runningMean(values, weights, span) {
  const mean = [];
  let sum = 0;
  let weight = 0;
  values.forEach((value, index) => {
    for (const [at, sign] of [[index, 1], [index - span, -1]]) {
      if (at >= 0 && values[at] != null) {
        sum += sign * values[at] * weights[at];
        weight += sign * weights[at];
      }
    }
    mean.push(weight > 0 ? sum / weight : null);
  });
  return mean;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const chart of charts) if (chart.plot) chart.build();
});
