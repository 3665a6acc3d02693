// The head of all views of one run: its name, and the tabs.

import { h, link } from "./dom.js";
import { get } from "./api.js";

const TABS = [["", "Overview"], ["/lint", "Lint"], ["/rows", "Rows"], ["/verdict", "Verdict"], ["/traffic", "Traffic"], ["/exchanges", "Exchanges"]];

/** The head; `tab` is one of the tabs' paths. */
export function runHead(run, tab) {
  const name = h("h1", { tabindex: "-1" }, "Run");
  const element = h("div", {}, h("p", { class: "crumbs" }, link("/", "Runs"), " / "), name,
    h("nav", { class: "tabs", "aria-label": "Parts of the run" }, TABS.map(([path, title]) => {
      const one = link(`/run/${run}${path}`, title);
      if (path === tab) one.setAttribute("aria-current", "page");
      return one;
    })));
  return { element, set: (found) => { name.textContent = found.name; document.title = `${found.name} – journeyman`; } };
}

/** Asks for the run's name; errors are left to the view. */
export async function named(head, run) {
  head.set(await get(`runs/${run}`));
}
