// Runs side by side: figures by role with intervals, and the settings that differ.

import { get } from "../lib/api.js";
import { h, link, replace, section, stack, table } from "../lib/dom.js";
import { figure, gigabytes, plural, seconds } from "../lib/format.js";
import { intervals } from "../lib/intervals.js";
import { attempt, empty } from "../lib/problem.js";
import { verdictBadge } from "../lib/states.js";

const MOST = 6;
const FIGURES = [["verdict", "verdict", (value) => verdictBadge(value)], ["base", "base", (value) => value], ["steps", "steps", figure],
  ["training_s", "training time", seconds], ["best_validation_loss", "best validation loss", figure], ["training_gb", "training memory", gigabytes],
  ["serving_gb", "serving memory", gigabytes], ["file_gb", "file that ships", gigabytes]];

export function show(place, parameters, query) {
  let ids = query.getAll("run");
  const chooser = h("div", {});
  const body = h("div", {});
  replace(place, h("h1", { tabindex: "-1" }, "Compare runs"), chooser, body);

  async function choose() {
    await attempt(chooser, async () => {
      const { runs } = await get("runs");
      if (runs.length < 2) return empty("There are not two runs to compare.");
      const boxes = runs.map((run) => {
        const box = h("input", { type: "checkbox", onchange: () => {
          ids = box.checked ? [...ids, run.id] : ids.filter((id) => id !== run.id);
          history.replaceState(null, "", `#/compare?${ids.map((id) => `run=${id}`).join("&")}`);
          for (const [other] of boxes) other.disabled = !other.checked && ids.length >= MOST;
          draw();
        } });
        box.checked = ids.includes(run.id);
        return [box, h("label", {}, box, ` ${run.name}`)];
      });
      return h("fieldset", { class: "chooser" }, h("legend", {}, "Two to six runs"), boxes.map(([, label]) => label));
    });
  }

  async function draw() {
    if (ids.length < 2) {
      replace(body, empty("Choose two runs or more."));
      return;
    }
    await attempt(body, async () => {
      const found = await get("compare", { run: ids });
      const names = found.runs.map((run) => run.name);
      const columns = [["Figure"], ...found.runs.map((run) => [link(`/run/${run.id}`, run.name), "number"])];
      const figures = FIGURES.map(([key, name, shown]) => [name, ...found.figures.map((one) => (one[key] === null && key !== "verdict" ? "not known" : shown(one[key])))]);
      const settings = found.settings.map((one) => [one.name, ...one.values.map((value) => (value === null ? h("span", { class: "muted" }, "none") : h("span", { class: "break" }, value))), one.stages.join(", ")]);
      return stack(section("Figures", table("Figures of the runs", columns, figures)),
        section("Success by role", found.roles.map((role) => ofRole(role, names))),
        section("Settings and inputs that differ", settings.length
          ? table("Settings that differ", [["Setting"], ...names.map((name) => [name]), ["Stages"]], settings, { cards: true })
          : empty("None differ."), h("p", { class: "small muted" }, `${plural(found.alike, "other setting")} are the same, as the manifests record them.`)));
    });
  }

  function ofRole(role, names) {
    const rows = role.arms.flatMap((arm) => arm.runs.map((one, at) => ({ label: `${arm.arm}, ${names[at]}`, kind: arm.arm, rate: one && one.success })));
    return h("div", { class: "role-chart wide" }, h("h3", {}, role.role),
      h("p", { class: "inline" }, role.verdicts.map((one, at) => h("span", { class: "role" }, `${names[at]} `, verdictBadge(one)))),
      intervals(`Success of ${role.role}`, rows, null));
  }

  return {
    title: "Compare",
    navigated: (next) => { ids = next.getAll("run"); choose(); draw(); },
    refresh: async (changed) => {
      if (changed === null || changed.runs) await choose();
      if (changed === null || ids.some((id) => (changed[id] || []).some((what) => what === "verdict" || what === "plan"))) await draw();
    },
  };
}
