// The columns of a section as the server sends them: whole at first, later from some time on.

// Puts what changed to what was there, and drops what is older than the range that is shown.
export function merged(held, { from_s: from, begin_s: begin, columns }) {
  if (from == null || held == null) return { ...columns };
  const first = begin == null ? 0 : held.time_s.findIndex((time) => time >= begin);
  const end = held.time_s.findIndex((time) => time >= from);
  const kept = first < 0 ? [0, 0] : [first, end < 0 ? held.time_s.length : end];
  return Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, held[name].slice(...kept).concat(values)]));
}

// The newest value that is there.
export function newest(values) {
  return values.findLast((value) => value != null) ?? null;
}
