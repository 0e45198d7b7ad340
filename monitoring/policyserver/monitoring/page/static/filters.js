// The reader's choice. The page's address holds it, so that a view can be bookmarked and sent.

const RANGES = [["", "the whole run"], ["300", "last 5 minutes"], ["900", "last 15 minutes"], ["3600", "last hour"], ["21600", "last 6 hours"], ["86400", "last day"], ["604800", "last week"]];
const KEYS = ["run", "symbol", "policy", "range"];
const selects = Object.fromEntries(KEYS.map((key) => [key, document.getElementById(key)]));

// The address's parameters of the choice, "" if the server chooses.
export function query() {
  const given = new URLSearchParams(location.search);
  const chosen = new URLSearchParams(KEYS.filter((key) => given.get(key)).map((key) => [key, given.get(key)]));
  return chosen.size ? `?${chosen}` : "";
}

function fill(key, options, chosen) {
  const known = options.some(([value]) => value === chosen) ? options : [...options, [chosen, chosen]];
  const select = selects[key];
  if (document.activeElement === select && select.options.length === known.length) return; // not while the reader uses it
  select.replaceChildren(...known.map(([value, text]) => new Option(text, value, false, value === chosen)));
}

export function showChoices({ run, runs, symbols, policies }) {
  const given = new URLSearchParams(location.search);
  const named = (names) => names.map((name) => [name, name]);
  fill("run", named(runs), run ?? "");
  fill("symbol", [["", "all"], ...named(symbols)], given.get("symbol") ?? "");
  fill("policy", [["", "all"], ...named(policies)], given.get("policy") ?? "");
}

// Calls back when the reader changes the choice or goes back to an earlier one.
export function onChoice(follow) {
  for (const [key, select] of Object.entries(selects)) {
    select.addEventListener("change", () => {
      const given = new URLSearchParams(location.search);
      if (select.value) given.set(key, select.value);
      else given.delete(key);
      if (key === "run") for (const other of ["symbol", "policy"]) given.delete(other);
      history.pushState(null, "", given.size ? `?${given}` : location.pathname);
      follow();
    });
  }
  addEventListener("popstate", () => {
    showRange();
    follow();
  });
}

function showRange() {
  fill("range", RANGES, new URLSearchParams(location.search).get("range") ?? "");
}

showRange();
