"use strict";
// Dark or light: as the system has it, or as the reader chose. Runs before the page is painted, so that it is never painted twice.

const theme = (() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => localStorage.getItem("theme") || "";

  function apply() {
    document.documentElement.dataset.theme = chosen() || (system.matches ? "dark" : "light");
    document.dispatchEvent(new Event("theme"));
  }

  system.addEventListener("change", apply);
  apply();
  return {
    chosen,
    choose(name) {
      localStorage.setItem("theme", name);
      apply();
    },
  };
})();
