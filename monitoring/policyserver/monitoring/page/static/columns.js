// The columns of a section as the server sends them: whole at first, later from some time on.

// Adds what changed to what was there, and drops what is older than the range.
export function merged(held, { from_s: from, begin_s: begin, columns }) {
  if (from == null || held == null) return { ...columns };
  const first = begin == null ? 0 : held.time_s.findIndex((time) => time >= begin);
  const end = held.time_s.findIndex((time) => time >= from);
  const kept = first < 0 ? [0, 0] : [first, end < 0 ? held.time_s.length : end];
  return Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, held[name].slice(...kept).concat(values)]));
}

// Where a curve is broken, as [index before, index after]: the gaps in which it has no value.
export function breaks(times, values, gaps) {
  const found = [];
  for (const [begin, end] of gaps) {
    let before = times.findLastIndex((time) => time <= begin);
    let after = times.findIndex((time) => time > begin);
    while (before >= 0 && values[before] == null) before--;
    while (after >= 0 && after < times.length && values[after] == null) after++;
    if (before >= 0 && after >= 0 && after < times.length && times[after] >= end) found.push([before, after]);
  }
  return found;
}

// Indices of the values that no line leads to or from.
export function alone(values, broken) {
  const there = values.flatMap((value, index) => (value == null ? [] : [index]));
  const cut = new Set(broken.map(([before]) => before));
  return there.filter((at, place) => (place === 0 || cut.has(there[place - 1])) && (place === there.length - 1 || cut.has(at)));
}

// The newest value, if there is any.
export function newest(values) {
  return values.findLast((value) => value != null) ?? null;
}
