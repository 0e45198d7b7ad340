// Numbers and times as text.

export function short(value) {
  if (value == null) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return `${(value / 1e6).toPrecision(4)} M`;
  if (size >= 1e4) return `${(value / 1e3).toPrecision(4)} k`;
  if (size >= 1000) return whole(value);
  if (size >= 100 || value === 0) return String(Math.round(value * 10) / 10);
  return size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

export const whole = (value) => (value == null ? "–" : Math.round(value).toLocaleString("en"));

export const percent = (value) => (value == null ? "–" : `${Number((value * 100).toPrecision(3))} %`);

export const duration = (value) => (value == null ? "–" : value < 1 ? `${short(value * 1000)} ms` : `${short(value)} s`);

// The moment in full: date and time.
export function moment(seconds) {
  return new Date(seconds * 1000).toLocaleString(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
}

// The time of day, with the date if it isn't today's.
export const stamp = (seconds) => (clock(seconds, 86400) === clock(Date.now() / 1000, 86400) ? clock(seconds, 1) : moment(seconds));

// The texts of an axis's ticks. With steps of less than a day, the first tick and the first one of each day have the date, too.
export function axisTimes(ticks, step) {
  let before = "";
  return ticks.map((tick) => {
    const date = clock(tick, 86400);
    const words = step >= 86400 || date === before ? clock(tick, step) : `${clock(tick, step)}\n${date}`;
    before = date;
    return words;
  });
}

// A time of day, or a date where the axis steps by days.
export function clock(seconds, step) {
  const time = new Date(seconds * 1000);
  if (step >= 86400) return time.toLocaleDateString(undefined, { month: "short", day: "numeric" });
  const second = step < 60 ? "2-digit" : undefined;
  return time.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second, hourCycle: "h23" });
}

// By their names in panels.
export const formats = { short, percent, duration };
