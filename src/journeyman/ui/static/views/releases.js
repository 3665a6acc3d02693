// Releases: what was promoted when and why, and one button each to promote and to roll back.

import { oneAtATime } from "../lib/again.js";
import { get, post } from "../lib/api.js";
import { confirm } from "../lib/dialog.js";
import { announce, h, link, replace, stack, table } from "../lib/dom.js";
import { time } from "../lib/format.js";
import { attempt, empty, problem } from "../lib/problem.js";
import { verdictBadge } from "../lib/states.js";

export function show(place) {
  const said = h("div", { role: "status" });
  const body = h("div", {});
  replace(place, h("h1", { tabindex: "-1" }, "Releases"), said, body);

  const draw = oneAtATime(async () => {
    await attempt(body, async () => {
      const found = await get("releases");
      const problems = found.problems.map((one) => h("p", { class: "bad" }, one));
      if (!found.folders.length) return stack(problems, empty("No run has a bundle yet, and nothing was promoted."));
      return stack(problems, found.folders.map(ofFolder));
    });
  });

  function ofFolder(folder) {
    const current = folder.events.findLast((event) => event.number === folder.current);
    const earlier = [...new Set(folder.events.map((event) => event.number))].filter((number) => number !== folder.current && folder.kept.includes(number)).sort((a, b) => b - a);
    const events = folder.events.toReversed().map((event) => [time(event.at), event.action, String(event.number), event.roles.join(", "), event.who,
      [event.why, event.override ? `despite the verdict: ${event.override}` : ""].filter(Boolean).join("; ")]);
    return h("section", { "aria-label": folder.path }, h("h2", { class: "path" }, folder.path),
      h("p", { class: "inline" }, current ? [h("strong", {}, `Release ${folder.current} is current`), h("span", { class: "muted" }, ` (${current.roles.join(", ")}, since ${time(folder.events.at(-1).at)})`)] : "Nothing was promoted yet."),
      earlier.length ? h("p", { class: "inline" }, earlier.map((number) => h("button", { type: "button", onclick: () => back(folder, number) }, `Roll back to ${number}`))) : null,
      events.length ? table("History", [["When"], ["What"], ["Release"], ["Roles"], ["Who"], ["Why"]], events, { cards: true }) : null,
      h("h3", {}, "Bundles of the runs"),
      folder.bundles.length ? table("Bundles", [["Run"], ["Made", "date"], ["Roles"], ["Verdicts"], [""]], folder.bundles.map((bundle) => [
        link(`/run/${bundle.run}`, bundle.name), time(bundle.made), bundle.roles.join(", "),
        Object.keys(bundle.verdicts).length ? h("span", { class: "inline" }, Object.entries(bundle.verdicts).map(([role, verdict]) => h("span", { class: "role" }, `${role} `, verdictBadge(verdict)))) : h("span", { class: "muted" }, "not recorded"),
        current && current.sha256 === bundle.sha256 ? h("span", { class: "badge good" }, "current") : h("button", { type: "button", onclick: () => promote(folder, bundle) }, "Promote"),
      ]), { cards: true }) : empty("No run has a bundle."));
  }

  async function promote(folder, bundle) {
    const fields = [{ name: "why", label: "Why, for the history" }];
    if (bundle.refused) fields.push({ name: "override", label: "Why it may ship despite its verdict, on record", required: true });
    const given = await confirm({ title: `Promote ${bundle.name}?`, action: "Promote", fields,
      lines: [`A verified copy of its bundle is kept in ${folder.path} and becomes the current release. Servers that follow the releases serve it from then on.`,
        bundle.refused ? `Its evidence does not allow it: ${bundle.refused}.` : `Roles: ${bundle.roles.join(", ")}.`] });
    if (given) await change(`runs/${bundle.run}/promote`, { sha256: bundle.sha256, current: folder.current ?? 0, why: given.why, override: given.override || "" }, "Verifying and copying the bundle…");
  }

  async function back(folder, number) {
    const given = await confirm({ title: `Roll back to release ${number}?`, action: `Roll back to ${number}`, fields: [{ name: "why", label: "Why, for the history" }],
      lines: [`Release ${number} in ${folder.path} becomes the current one instead of ${folder.current}. Servers that follow the releases serve it from then on.`] });
    if (given) await change(`releases/${folder.id}/rollback`, { to: number, current: folder.current, why: given.why }, "Verifying the release…");
  }

  async function change(path, body_, words) {
    replace(said, h("p", {}, words));
    for (const button of body.querySelectorAll("button")) button.disabled = true;
    try {
      const done = await post(path, body_);
      replace(said, h("p", { class: "good" }, `Release ${done.number} is current.`));
      announce(`Release ${done.number} is current`);
    } catch (error) {
      replace(said, problem(error));
    }
    await draw();
  }

  return {
    title: "Releases",
    refresh: (changed) => (changed === null || Object.entries(changed).some(([run, what]) => run === "runs" || what.includes("releases")) ? draw() : undefined),
  };
}
