// The columns of a section as the server sends them: whole at first, later from some time on.

// Puts what changed to what was there, and drops what is older than the range that is shown.
export function merged(held, { from_s: from, begin_s: begin, columns }) {
  if (from == null || held == null) return { ...columns };
  const first = begin == null ? 0 : held.time_s.findIndex((time) => time >= begin);
  const end = held.time_s.findIndex((time) => time >= from);
  const kept = first < 0 ? [0, 0] : [first, end < 0 ? held.time_s.length : end];
  return Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, held[name].slice(...kept).concat(values)]));
}

// Mean over the newest `span` buckets at each one, weighted by what each holds.
export function runningMean(values, weights, span) {
  let sum = 0;
  let weight = 0;
  return values.map((value, index) => {
    for (const [at, sign] of [[index, 1], [index - span, -1]]) {
      if (at >= 0 && values[at] != null) {
        sum += sign * values[at] * weights[at];
        weight += sign * weights[at];
      }
    }
    return weight > 0 ? sum / weight : null;
  });
}

// Mean over the newest tenth of what the buckets hold.
export function lastTenth(values, weights) {
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

// The newest value that is there.
export function newest(values) {
  return values.findLast((value) => value != null) ?? null;
}
