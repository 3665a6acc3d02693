// What `journeyman monitor` says: looked at when the user asks for it.

import { get, post } from "./api.js";
import { h, replace, section, stack, table } from "./dom.js";
import { count, figure, percent, plural, seconds, time } from "./format.js";
import { attempt, problem } from "./problem.js";

const share = (found) => (found ? `${percent(found.part / found.of)} (${Math.round(found.low * 100)}–${Math.round(found.high * 100)} %)` : "–");
const success = (one) => (one.requests ? (one.success ? share(one.success) : "not known") : "–");

export class Monitor {
  constructor(run) {
    this.run = run;
    this.body = stack();
    this.button = h("button", { type: "button", onclick: () => this.look() }, "Look now");
    this.element = section("Monitor", h("p", { class: "inline" }, this.button,
      h("span", { class: "muted small" }, "As journeyman monitor does, for monitor.hours: it reads the recorded rows, and compares prompts with those of the training.")), this.body);
  }

  async draw() {
    await attempt(this.body, async () => this.shown((await get(`runs/${this.run}/monitor`)).look));
  }

  async look() {
    this.button.disabled = true;
    this.button.textContent = "Looking…";
    try {
      replace(this.body, this.shown((await post(`runs/${this.run}/monitor/look`, { hours: 0 })).look));
    } catch (error) {
      replace(this.body, problem(error));
    }
    this.button.disabled = false;
    this.button.textContent = "Look now";
  }

  shown(look) {
    if (!look) return null;
    const rows = look.roles.map((one) => [one.role, count(one.requests), one.by_student === null ? "–" : count(one.by_student), success(one.answers.teacher), success(one.answers.student),
      success(one.answers.shadow), share(one.fallbacks), one.saved ? `$${figure(one.saved.dollars)}` : "–", drift(one), again(one)]);
    const notes = [...look.notes, ...look.roles.flatMap((one) => [one.success_unknown, one.saved_unknown, one.drift_unknown].filter(Boolean).map((why) => `${one.role}: ${why}`))];
    return stack(h("p", { class: "small muted" }, `looked ${time(look.at)}, at what was recorded since ${time(look.complete ? look.since : look.reaches)}${look.complete ? "" : " (not further back, because there is too much)"}: ${plural(look.read, "line")} in ${seconds(look.took_s)}`),
      rows.length ? table("Monitor by role", [["Role"], ["Requests", "number"], ["Student", "number"], ["Teacher's success", "number"], ["Student's", "number"], ["In shadow", "number"], ["Fallbacks", "number"], ["Saved", "number"], ["Drift"], ["Train again"]], rows, { cards: true }) : h("p", { class: "empty" }, "Nothing was recorded in that time."),
      notes.length ? h("details", {}, h("summary", {}, plural(notes.length, "note")), h("ul", {}, notes.map((one) => h("li", { class: "small" }, one)))) : null);
  }
}

function drift(one) {
  if (one.drift_unknown || one.drift === null) return h("span", { class: "muted" }, "not known");
  const found = one.drift_tests.filter((test) => test.found).map((test) => `${test.test} (p ${figure(test.p)})`);
  return found.length ? h("span", { class: "warn" }, found.join(", ")) : "none found";
}

function again(one) {
  return one.train_again.length ? h("span", { class: "break" }, one.train_again.join("; ")) : "–";
}
