// Who answers a role, and the buttons that change it.

import { post } from "./api.js";
import { confirm } from "./dialog.js";
import { announce, h, replace } from "./dom.js";
import { percent } from "./format.js";
import { problem } from "./problem.js";

const MODES = {
  teacher: ["none", "The teacher answers all requests, at once also in conversations that have begun."],
  shadow: ["none", "The teacher answers. The student gets the same requests afterwards, and both answers are scored."],
  canary: ["now", "The student answers a share of the new conversations, and the teacher where it fails. The canary is promoted or rolled back by itself."],
  fallback: ["good", "The student answers all new conversations, and the teacher where it fails."],
  student: ["warn", "The student answers all new conversations, also where it fails."],
};

export function routeBadge(route) {
  if (!route) return h("span", { class: "badge none" }, "teacher");
  return h("span", { class: `badge ${MODES[route.mode][0]}` }, route.mode === "canary" ? `canary ${percent(route.share)}` : route.mode);
}

/** The buttons of a role; `said` is where the outcome is shown, `done` is called after a change. */
export function routeButtons(run, role, student, said, done) {
  if (role.id === null || !student) return null;
  const now = role.route ? role.route.mode : "teacher";
  const button = (title, mode, kind, words, required) => h("button", { type: "button", class: kind, "aria-label": `${title}: ${role.role}`, onclick: () => change(mode, title, words, required) }, title);
  const canary = now === "canary"
    ? [button("Promote", "fallback", "primary", "This decides before the evidence does.", true), button("Roll back", "teacher", "danger", "", true), button("Change the share", "canary", null, "What the canary has seen stays valid; conversations that have begun keep their arm.", false)]
    : [];
  const others = Object.keys(MODES).filter((mode) => mode !== now && !(now === "canary" && (mode === "fallback" || mode === "teacher")))
    .map((mode) => button(mode === "canary" ? "Begin a canary" : `To ${mode}`, mode, null, "", false));
  return h("p", { class: "inline buttons" }, canary, others);

  async function change(mode, title, more, required) {
    const fields = [{ name: "why", label: "Why, for the history", required }];
    if (mode === "canary") fields.unshift({ name: "share", label: "Share of the new conversations, in percent", required: true, pattern: "0*([1-9][0-9]?([.][0-9]+)?|0[.][0-9]*[1-9][0-9]*)", value: String(now === "canary" ? Math.round(role.route.share * 1000) / 10 : 10) });
    const given = await confirm({ title: `${title}: ${role.role}?`, action: title, fields,
      lines: [MODES[mode][1], more, `Now: ${now}${now === "canary" ? `, ${percent(role.route.share)}` : ""}. A recorder that runs takes it over within a second.`].filter(Boolean) });
    if (!given) return;
    let words = null;
    try {
      const share = mode === "canary" ? Number(given.share) / 100 : 0.1;
      const made = await post(`runs/${run}/route`, { role: role.id, state: role.state, mode, share, why: given.why });
      words = h("p", { class: "good" }, `${made.role}: ${made.mode}.`);
      announce(`${made.role}: ${made.mode}`);
    } catch (error) {
      words = problem(error);
    }
    await done(); // so that what is said is true of the buttons too
    replace(said, words);
  }
}
