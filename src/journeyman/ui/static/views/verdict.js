// The verdict by role: intervals with the threshold, what each rule of the plan found, and what to try next.

import { oneAtATime } from "../lib/again.js";
import { get } from "../lib/api.js";
import { h, link, replace, section, stack, table } from "../lib/dom.js";
import { count, figure, percent, plural, rate, seconds } from "../lib/format.js";
import { intervals } from "../lib/intervals.js";
import { attempt } from "../lib/problem.js";
import { named, runHead } from "../lib/runhead.js";
import { outcomeBadge, verdictBadge } from "../lib/states.js";

export function show(place, { run }) {
  const head = runHead(run, "/verdict");
  const body = h("div", {});
  replace(place, head.element, body);

  async function draw() {
    await attempt(body, async () => {
      named(head, run).catch(() => {});
      const found = await get(`runs/${run}/verdict`);
      const pooled = found.roles.filter((one) => one.role === "all");
      const roles = found.roles.filter((one) => one.role !== "all");
      return stack(
        h("p", { class: "inline" }, verdictBadge(found.verdict), found.verdict
          ? `${found.deployed.length ? `may be deployed: ${found.deployed.join(", ")}` : "no role may be deployed"}; shipped: ${found.ships}; ${plural(found.rows, "test row")}, look ${found.look}`
          : "decide has not been run"),
        chart(found, roles),
        h("p", { class: "small muted" }, `Dot: the rate; bar: its interval at ${figure(found.role_confidence * 100)} % confidence; dashed: the least success that the plan asks for.`),
        [...roles, ...pooled].map((one) => ofRole(one, found)),
        rules(found), regressions(found),
        found.notes.length ? section("Notes", h("ul", {}, found.notes.map((one) => h("li", {}, one)))) : null);
    });
  }

  function chart(found, roles) {
    return h("div", { class: "roles" }, roles.map((one) => h("div", { class: "role-chart" }, h("h3", {}, one.role, " ", verdictBadge(one.verdict)),
      intervals(`Success of ${one.role}`, one.arms.map((arm) => ({ label: arm.arm, kind: arm.arm, rate: arm.success })), found.threshold))));
  }

  function ofRole(one, found) {
    const reasons = one.reasons.map((why) => [why.rule, outcomeBadge(why.outcome), why.sentence]);
    const arms = one.arms.map((arm) => [arm.arm, rate(arm.success), count(arm.unscored), arm.alone ? seconds(arm.alone.mean_s) : "not known",
      arm.alone ? seconds(arm.alone.p95_s) : "not known", arm.under_load ? seconds(arm.under_load.mean_s) : "not known"]);
    const versus = one.versus.filter((pair) => pair.wins + pair.losses + pair.ties).map((pair) => [`against ${pair.arm}`, count(pair.wins), count(pair.losses), count(pair.ties),
      pair.low === null ? "not known" : `${Math.round(pair.low * 100)} to ${Math.round(pair.high * 100)} %`, pair.p_value === null ? "–" : figure(pair.p_value)]);
    const failures = one.arms.find((arm) => arm.arm === found.ships)?.failures || [];
    return h("details", { class: "role-detail", open: one.verdict !== null && one.role !== "all" },
      h("summary", {}, h("h2", {}, one.role === "all" ? "All roles together" : one.role), verdictBadge(one.verdict), h("span", { class: "muted" }, ` ${plural(one.rows, "row")}, ${plural(one.groups, "group")}`)), stack(
      reasons.length ? table(`Rules for ${one.role}`, [["Rule"], ["Outcome"], ["What was found"]], reasons, { cards: true }) : null,
      one.next_steps.length ? h("p", {}, h("strong", {}, "Next: "), one.next_steps.join("; ")) : null,
      table(`Arms of ${one.role}`, [["Arm"], [`Success (interval at ${figure((one.role === "all" ? found.confidence : found.role_confidence) * 100)} %)`, "number"], ["Unscored", "number"], ["Mean alone", "number"], ["p95 alone", "number"], ["Mean under load", "number"]], arms),
      versus.length ? table(`${found.ships} row by row`, [[found.ships], ["Won", "number"], ["Lost", "number"], ["Tied", "number"], ["Difference", "number"], ["p", "number"]], versus) : null,
      failures.length ? h("p", { class: "small" }, `Why ${found.ships} failed: `, failures.map((why) => `${count(why.n)} × ${why.sentence}`).join("; ")) : null,
      one.role === "all" ? null : h("p", {}, link(`/run/${run}/rows`, "Its rows side by side"))));
  }

  function rules(found) {
    const shares = new Set(["least success", "margin to the teacher", "margin of the regression suite"]);
    const shown = ([name, value]) => [name, value === null ? "not compared" : shares.has(name) ? percent(value) : name.startsWith("confidence") ? `${figure(value * 100)} %` : name.includes("latency") ? seconds(value) : `${figure(value)} GB`];
    return section("Rules of the plan", table("Rules of the plan", [["Rule"], ["Value", "number"]], Object.entries(found.rules).map(shown)),
      table("Checks by role", [["Role"], ["Checks"]], Object.entries(found.checks).map(([role, one]) => [role,
        Object.keys(one.weights).length ? `${Object.entries(one.weights).map(([name, weight]) => `${name} ${weight}`).join(", ")}; passes at ${percent(one.pass_at)}` : one.checks.join(", ")])));
  }

  function regressions(found) {
    if (!found.regressions.length) return null;
    return section("Regression suite", table("Regression suite", [["Adapter"], ["Part"], ["Questions", "number"], ["Base", "number"], ["Tuned", "number"]],
      found.regressions.map((one) => [one.adapter, one.part, count(one.n), count(one.base), count(one.tuned)])));
  }

  const refresh = oneAtATime(draw);
  return {
    title: "Verdict",
    refresh: (changed) => (changed === null || (changed[run] || []).includes("verdict") ? refresh() : undefined),
  };
}
