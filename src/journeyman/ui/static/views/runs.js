// All runs below the folder.

import { oneAtATime } from "../lib/again.js";
import { get } from "../lib/api.js";
import { h, link, replace } from "../lib/dom.js";
import { time } from "../lib/format.js";
import { attempt, empty } from "../lib/problem.js";
import { workLine } from "../lib/work.js";
import { stageStrip, verdictBadge } from "../lib/states.js";

export function show(place) {
  const list = h("div", {});
  const chosen = new Set();
  const compare = h("button", { type: "button", onclick: () => { location.hash = `#/compare?${[...chosen].map((id) => `run=${id}`).join("&")}`; } });
  const folder = h("p", { class: "muted path" });
  replace(place, h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Runs"), h("span", { class: "grow" }), compare), folder, list);
  count();

  function count() {
    compare.disabled = chosen.size < 2 || chosen.size > 6;
    compare.textContent = chosen.size < 2 ? "Compare (choose two to six)" : `Compare ${chosen.size} runs`;
  }

  function row(run) {
    const box = h("input", { type: "checkbox", "aria-label": `compare ${run.name}`, onchange: () => {
      if (box.checked) chosen.add(run.id);
      else chosen.delete(run.id);
      count();
    } });
    box.checked = chosen.has(run.id);
    const problems = run.problems.map((one) => h("p", { class: "bad small" }, one));
    return h("tr", {}, h("td", { class: "box" }, box),
      h("th", { scope: "row" }, link(`/run/${run.id}`, run.name), problems),
      h("td", { "data-label": "Stages" }, stageStrip(run.stages)),
      h("td", { "data-label": "Verdict" }, verdictBadge(run.verdict)),
      h("td", { "data-label": "Base", class: "break" }, run.base || h("span", { class: "muted" }, "not known")),
      h("td", { "data-label": "Made", class: "date" }, time(run.when) || "–"),
      h("td", { "data-label": "Now" }, workLine(run.now)));
  }

  const refresh = oneAtATime(async () => {
    await attempt(list, async () => {
      const found = await get("runs");
      folder.textContent = `${found.folder}${found.cut ? " (too many folders: not all were searched; name one further down)" : ""}`;
      compare.hidden = found.runs.length < 2;
      for (const id of chosen) if (!found.runs.some((run) => run.id === id)) chosen.delete(id);
      count();
      if (!found.runs.length) return empty("No runs here; start with: ", h("code", {}, "journeyman demo"));
      const titles = ["", "Run", "Stages", "Verdict", "Base", "Made", "Now"];
      const rows = found.runs.map((run) => {
        const made = row(run);
        made.dataset.id = run.id;
        return made;
      });
      return h("table", { class: "cards" }, h("caption", { class: "hidden" }, "Runs"),
        h("thead", {}, h("tr", {}, titles.map((title) => h("th", { scope: "col" }, title || h("span", { class: "hidden" }, "choose"))))),
        h("tbody", {}, rows));
    });
  });

  return {
    title: "Runs",
    refresh(changed) {
      const concerns = changed === null || Object.entries(changed).some(([run, what]) => run === "runs" || what.includes("state"));
      return concerns ? refresh() : undefined;
    },
  };
}
